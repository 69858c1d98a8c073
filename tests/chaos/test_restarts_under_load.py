"""Schedulers and executors that die or are restarted in a random order, also at once, under clients that read on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sage_client import AsyncClient, InstanceState
from tests.chaos.restart_load import SPLIT_FROM, RestartLoad
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.support.process_supervisor import ProcessSupervisor
from tests.support.service_process import ServiceProcess

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

NAMES = ("a", "b", "c")
EACH = 5  # clients of each sort
LONGER_S = 120.0  # that a busy machine gets for the first request in two legs to end
SPLITTING = (
    "--pd-separation.enabled",
    "--pd-separation.routing-policy=threshold",
    f"--pd-separation.prefilling-threshold-input-tokens={SPLIT_FROM}",
)
KV = {"connector": "NixlConnector", "handshake-s": 0.01, "pull-base-s": 0.01, "lease-s": 5}
LEGS = (
    "--role=hybrid",
    "--engine.simulated.prefill-tokens-per-s=2000",
    *(f"--engine.simulated.kv-transfer.{name}={value}" for name, value in KV.items()),
)


async def test_what_ends_well_is_exact_and_what_is_lost_is_told(
    logs: Path, simulated: list[str], tmp_path: Path, seconds: float, seed: int
) -> None:
    dice = random.Random(seed)
    flags = ["--state-dir", str(tmp_path / "state"), "--policy", "fifo", "--instance.adopt-s=30", *SPLITTING]
    async with (
        FleetProcesses(logs, flags, listen=f"127.0.0.1:{free_port()}") as fleet,
        fleet.client() as sessions,
        fleet.client(use_sessions=False) as calls,
    ):
        executors = [fleet.launch(name, [*simulated, *LEGS]) for name in NAMES]
        await fleet.ready(*NAMES)
        load = RestartLoad(fleet.address, sessions, calls, each=EACH, seed=seed)
        async with ProcessSupervisor([fleet.scheduler, *executors]), asyncio.TaskGroup() as group:
            group.create_task(load.run(), name="load")
            faults = await _strike(fleet.scheduler, executors, dice, seconds, lambda: load.tally.split > 0)
            load.stop()
        print(f"seed {seed}: {faults} faults, {load.tally}")
        assert load.tally.split, "requests in two legs were struck, too"
        assert sum(load.tally.finished.values()) > sum(load.tally.lost.values())
        await all_is_free(fleet, sessions)


async def _strike(
    scheduler: ServiceProcess,
    executors: list[ServiceProcess],
    dice: random.Random,
    seconds: float,
    enough: Callable[[], bool],
) -> int:
    """Fault after fault until the time is over, and on a busy machine until ``enough``; return how many there were."""
    loop, faults = asyncio.get_running_loop(), 0
    end = loop.time() + seconds
    while loop.time() < end or (not enough() and loop.time() < end + LONGER_S):
        await asyncio.sleep(dice.uniform(0.2, 5.0))
        kind = dice.random()
        victims = [scheduler] if kind < 0.8 else []
        if kind > 0.6:
            victims.append(dice.choice(executors))
        for victim in victims:
            if victim.running:
                dice.choice([victim.kill, victim.kill, victim.terminate])()
                faults += 1
    return faults


async def all_is_free(fleet: FleetProcesses, client: AsyncClient, names: Sequence[str] = NAMES) -> None:
    """Every instance is back and none holds room for a request that is over."""
    await fleet.ready(*names)

    async def idle() -> bool:
        view = await client.list_instances()
        assert {i.state for i in view.instances} == {InstanceState.READY}
        assert all(queue.waiting == 0 for queue in view.queues)
        return all((i.assigned, i.running, i.waiting, i.kv_used_tokens) == (0, 0, 0, 0) for i in view.instances)

    await eventually(idle, within_s=25, what="all room to be free", every_s=0.1)  # what nobody reads waits 15 s
