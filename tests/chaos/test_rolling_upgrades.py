"""All executors are replaced by ones with other weights, one after another, under load."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sage_client import AsyncClient, InstanceState, ModelChangedError, Tokens
from tests.chaos.load import Load, Tally
from tests.support.fleet_processes import FleetProcesses
from tests.support.service_process import ServiceProcess

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

NAMES = ("a", "b", "c")
DRAIN = ["--drain-timeout-s", "60"]  # longer than any request of the load
OLD = ["--engine.model.revision", "1"]
NEW = ["--engine.model.revision", "2"]


async def test_no_request_fails_when_each_old_one_drains_to_its_end(
    logs: Path, simulated: list[str], seed: int
) -> None:
    old, new = [*simulated, *DRAIN, *OLD], [*simulated, *DRAIN, *NEW]
    async with FleetProcesses(logs) as fleet, fleet.client() as client:
        load = Load(client, clients=24, seed=seed, revisions=("1", "2"))
        tally = await _replaced_under_load(fleet, load, old, new)
        assert min(tally.answered_by["1"], tally.answered_by["2"]) > 0, "both revisions answered"


async def test_a_new_engine_of_the_same_weights_goes_on_with_what_the_old_one_left(
    logs: Path, simulated: list[str], seed: int
) -> None:
    hasty = [*simulated, "--drain-timeout-s", "0.1"]
    async with FleetProcesses(logs) as fleet, fleet.client() as client:
        tally = await _replaced_under_load(fleet, Load(client, clients=24, seed=seed), hasty, hasty)
        assert tally.moved > 0


async def _replaced_under_load(fleet: FleetProcesses, load: Load, old: list[str], new: list[str]) -> Tally:
    """Start all executors as ``old``, replace one after the other by ``new``, and return what became of the load."""
    for name in NAMES:
        fleet.launch(name, old)
    await fleet.ready(*NAMES)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(), name="load")
        for name in NAMES:
            await asyncio.sleep(1)
            leaving = fleet.executors[name]
            leaving.terminate()
            assert await leaving.ended(within_s=90) == 0
            fleet.launch(name, new)
            await fleet.ready(name)
        await asyncio.sleep(1)
        load.stop()
    print(load.tally)
    assert load.tally.accepted == load.tally.finished + load.tally.cancelled
    assert not load.tally.refused
    return load.tally


async def test_what_is_killed_with_no_peer_of_its_weights_left_says_so(logs: Path, simulated: list[str]) -> None:
    async with FleetProcesses(logs, ["--queue.orphan-timeout-s", "1"]) as fleet, fleet.client() as client:
        old = fleet.launch("old", [*simulated, *OLD])
        fleet.launch("new", [*simulated, *NEW])
        await fleet.ready("old", "new")
        with pytest.raises(ModelChangedError):
            await _stream_until_killed(client, old)
        await fleet.until("old", InstanceState.LOST)
        done = await client.generate("Once", max_tokens=3).result()
        assert done.instance_id == "new"
        await _comes_back(fleet, old, [*simulated, *NEW])


async def _stream_until_killed(client: AsyncClient, old: ServiceProcess) -> None:
    async for event in client.generate("Once", preferred_instance=old.name, max_tokens=2_000, temperature=0):
        if isinstance(event, Tokens) and old.running:
            old.kill()


async def _comes_back(fleet: FleetProcesses, old: ServiceProcess, flags: list[str]) -> None:
    """An executor may take its name again with the new weights."""
    assert not old.running
    fleet.launch("old", flags)
    await fleet.ready("old")
