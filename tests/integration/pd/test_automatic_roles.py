"""Executors that change between prefill and decode under load, and back; no stream is lost meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
from click.testing import CliRunner

from sage_client import InstanceRole, RoleChange
from sagectl.cli import sagectl
from tests.integration.pd.pd_fleet import PdFleet
from tests.support.eventually import eventually

PREFILLING, DECODING = InstanceRole.PREFILLING, InstanceRole.DECODING
QUICK = {"enabled": True, "interval_s": 0.2, "delay_s": 0.6, "cooldown_s": 0.5, "back_s": 1.0, "room": 0.9}
LONG_S = 60.0  # on a busy machine; nothing waits that long where all is well


class Load:
    """So many requests of one shape at any time, until it ends; each is compared with one engine's answer."""

    def __init__(self, fleet: PdFleet, numbers: count[int], at_once: int, **options: Any) -> None:
        self._fleet = fleet
        self._numbers = numbers
        self._options = options
        self._over = False
        self._workers = [asyncio.create_task(self._work()) for _ in range(at_once)]

    async def _work(self) -> None:
        while not self._over:
            await self._fleet.answered(next(self._numbers), **self._options)

    def stop(self) -> None:
        """Drop what runs."""
        for each in self._workers:
            each.cancel()

    async def end(self) -> None:
        """Start nothing more, and wait for what runs.  Raises what was wrong with a stream."""
        self._over = True
        await asyncio.gather(*self._workers)

    def fail_early(self) -> None:
        """Raise what is wrong already."""
        for each in self._workers:
            if each.done() and not each.cancelled():
                each.result()


@asynccontextmanager
async def under(load: Load) -> AsyncIterator[Load]:
    """End the load with the block, and have its streams come to their ends; drop them if the block fails."""
    try:
        yield load
        await load.end()
    finally:
        load.stop()


@pytest.fixture
async def fleet() -> AsyncIterator[PdFleet]:
    """A scheduler that splits every request and changes roles quickly, no executor yet."""
    async with PdFleet(automatic_roles=QUICK) as made:
        yield made


async def until_changed(fleet: PdFleet, load: Load, cause: str) -> RoleChange:
    """Wait for a change of this cause, and return it."""

    async def there() -> RoleChange | None:
        load.fail_early()
        changes = (await fleet.client.get_prefill_decode()).role_changes
        return next((each for each in changes if each.cause == cause), None)

    return await eventually(there, within_s=LONG_S, what=f"a role to change for {cause}", every_s=0.1)


@pytest.mark.timeout(180)
async def test_roles_follow_the_load_there_and_back_and_no_stream_is_lost(fleet: PdFleet) -> None:
    engine: dict[str, Any] = {"prefill_tokens_per_s": 1_500.0, "max_running": 4}
    await fleet.add_leg("p0", "prefilling", **engine)
    for n in range(3):
        await fleet.add_leg(f"d{n}", "decoding", **engine)
    await fleet.proved(3)
    numbers = count(1)
    async with under(Load(fleet, numbers, at_once=6, max_tokens=2, ttft_target=0.5)) as prompts:
        change = await until_changed(fleet, prompts, "prefill_pressed")
    assert (change.previous, change.role) == (DECODING, PREFILLING)
    shown = await fleet.client.get_instance(change.instance_id)
    assert shown.role is PREFILLING
    assert shown.role_change is not None
    assert shown.role_change.reason == change.reason
    arguments = ["pd", "get", "--address", fleet.address]
    run = await asyncio.to_thread(CliRunner().invoke, sagectl, arguments, catch_exceptions=False)
    assert change.reason.split(",")[0] in run.output
    async with under(Load(fleet, numbers, at_once=10, max_tokens=400)) as outputs:
        back = await until_changed(fleet, outputs, "decode_pressed")
    assert (back.previous, back.role) == (PREFILLING, DECODING)
    page = await fleet.page()
    for cause in ("prefill_pressed", "decode_pressed"):
        assert page.total("sage_pd_role_changes_total", cause=cause) >= 1
    await fleet.free(*fleet.executors)
