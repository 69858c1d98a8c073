"""Every kind of fault, one after the other in a random order, under every kind of client and request."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.struck_fleet import struck_fleet

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1_200)]


async def test_nothing_is_doubled_or_changed_and_what_is_lost_is_told(
    logs: Path, simulated: list[str], tmp_path: Path, seconds: float, seed: int
) -> None:
    """Lost is only what a scheduler and an executor knew that both were struck."""
    async with struck_fleet(logs, simulated, tmp_path, seed) as struck:
        both = struck.executors.both(struck.fleet.scheduler)
        processes = {**struck.executors.kinds, **struck.scheduler.kinds, **both}
        await struck.play({**processes, **struck.links.kinds, **struck.machine}, seed, seconds)


async def test_nothing_is_lost_while_executors_stay(
    logs: Path, simulated: list[str], tmp_path: Path, seconds: float, seed: int
) -> None:
    async with struck_fleet(logs, simulated, tmp_path, seed) as struck:
        kinds = {**struck.scheduler.kinds, **struck.links.short, **struck.machine}
        await struck.play(kinds, seed, seconds / 2)
        assert not struck.load.tally.losses


async def test_nothing_is_lost_while_the_scheduler_stays(
    logs: Path, simulated: list[str], tmp_path: Path, seconds: float, seed: int
) -> None:
    async with struck_fleet(logs, simulated, tmp_path, seed) as struck:
        kinds = {**struck.executors.kinds, **struck.links.kinds, **struck.scheduler.pauses, **struck.machine}
        await struck.play(kinds, seed, seconds / 2)
        assert not struck.load.tally.losses
