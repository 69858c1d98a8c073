"""kill -9 of executors, again and again, under load."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from sage_client import AsyncClient, InstanceState
from tests.chaos.load import Load
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.process_supervisor import ProcessSupervisor

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

NAMES = ("a", "b", "c")


async def test_executors_are_killed_under_load_and_nothing_is_lost(
    logs: Path, simulated: list[str], seconds: float, seed: int
) -> None:
    dice = random.Random(seed)
    async with FleetProcesses(logs, ["--policy", "priority"]) as fleet, fleet.client() as client:
        executors = [fleet.launch(name, simulated) for name in NAMES]
        await fleet.ready(*NAMES)
        load = Load(client, clients=24, seed=seed)
        loop = asyncio.get_running_loop()
        kills = 0
        async with ProcessSupervisor(executors) as supervisor, asyncio.TaskGroup() as group:
            group.create_task(load.run(), name="load")
            end = loop.time() + seconds
            while loop.time() < end:
                await asyncio.sleep(dice.uniform(0.3, 1.5))
                victim = dice.choice([each for each in executors if each.running])
                victim.kill()
                kills += 1
            load.stop()
        assert kills >= seconds / 2
        assert supervisor.statuses.count(-9) == kills
        tally = load.tally
        print(f"seed {seed}: {kills} kills, {tally}")
        assert tally.accepted == tally.finished + tally.cancelled
        assert tally.moved >= kills / 2, "the kills struck requests that were running"
        assert not tally.refused, "who asks to wait is never refused"
        await _all_is_well_again(fleet, client)


async def _all_is_well_again(fleet: FleetProcesses, client: AsyncClient) -> None:
    """Every instance is back and none holds room for a request that is over."""
    await fleet.ready(*NAMES)

    async def idle() -> bool:
        view = await client.list_instances()
        assert {i.state for i in view.instances} == {InstanceState.READY}
        assert all(queue.waiting == 0 for queue in view.queues)
        return all((i.assigned, i.running, i.waiting, i.kv_used_tokens) == (0, 0, 0, 0) for i in view.instances)

    await eventually(idle, within_s=10, what="all room to be free", every_s=0.1)
    for name in NAMES:
        done = await client.generate("Still there?", preferred_instance=name, max_tokens=3).result()
        assert done.instance_id == name
