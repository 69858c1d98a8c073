"""Connections between the scheduler and its executors break in every way, again and again, under load."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.chaos.load import Load
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.network_proxy import NetworkProxy

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

NAMES = ("a", "b", "c")
FLAGS = ["--policy", "fifo", "--instance.lease-s", "1.5", "--instance.heartbeat-interval-s", "0.2"]


async def test_networks_break_under_load_and_nothing_is_lost(
    logs: Path, simulated: list[str], seconds: float, seed: int
) -> None:
    dice = random.Random(seed)
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(FleetProcesses(logs, FLAGS))
        client = await stack.enter_async_context(fleet.client())
        networks = [await stack.enter_async_context(NetworkProxy(fleet.port)) for _ in NAMES]
        for name, network in zip(NAMES, networks, strict=True):
            fleet.launch(name, simulated, address=network.address)
        await fleet.ready(*NAMES)
        load = Load(client, clients=24, seed=seed)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(), name="load")
            end = loop.time() + seconds
            while loop.time() < end:
                await _break_one(dice, networks)
            load.stop()
            for network in networks:
                await network.heal()
        tally = load.tally
        print(f"seed {seed}: {tally}")
        assert tally.accepted == tally.finished + tally.cancelled
        assert tally.moved > 0
        assert not tally.refused, "who asks to wait is never refused"
        await fleet.ready(*NAMES)

        async def idle() -> bool:
            view = await client.list_instances()
            return all((i.assigned, i.running, i.waiting, i.kv_used_tokens) == (0, 0, 0, 0) for i in view.instances)

        await eventually(idle, within_s=10, what="all room to be free", every_s=0.1)


async def _break_one(dice: random.Random, networks: list[NetworkProxy]) -> None:
    network = dice.choice(networks)
    kind = dice.choice(["cut", "cut", "refuse", "blackhole"])
    if kind == "cut":
        await network.cut()
    elif kind == "refuse":
        await network.refuse()
    else:
        network.blackhole()
    await asyncio.sleep(dice.choice([0.05, 0.2, 0.6, 2.0]))
    await network.heal()
    await asyncio.sleep(dice.uniform(0.1, 0.5))
