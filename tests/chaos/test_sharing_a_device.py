"""Two models take turns on one device under load, while their executors are killed, or the scheduler starts anew."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from executor_svc.runtime.engine_port import Sampling
from sage_client import AsyncClient, InstanceState
from tests.chaos.load import Load
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.support.process_supervisor import ProcessSupervisor
from tests.support.service_process import ServiceProcess
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

NAMES = ("a", "b")
TURNS = ["--device-groups.min-awake-s", "0.3", "--device-groups.turn-factor", "2", "--device-groups.drain-limit-s", "1"]


def model_of(name: str) -> str:
    return f"sim-{name}"


def sharing(simulated: list[str], name: str, locks: Path) -> list[str]:
    """Return the flags of an executor whose engine is awake in turns with the others of ``locks``."""
    return [
        *simulated,
        *("--model", model_of(name), "--engine.simulated.sleep-mode"),
        *("--engine.simulated.sleep-s", "0.1", "--engine.simulated.wake-s", "0.3"),
        *("--device-group.name", "gpu-0", "--device-group.directory", str(locks)),
    ]


async def both_known(fleet: FleetProcesses) -> None:
    """Wait until both engines were up once: requests for their models can be read from then on."""
    await asyncio.gather(*(fleet.until(name, InstanceState.READY, InstanceState.SLEEPING) for name in NAMES))


class Watch:
    """Looks again and again how many of the engines are awake."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.turns: list[str] = []  # who was awake, one after the other
        self.together: set[tuple[str, ...]] = set()

    async def run(self) -> None:
        while True:
            view = await self._client.list_instances()
            ready = tuple(each.instance_id for each in view.instances if each.state is InstanceState.READY)
            if len(ready) > 1:
                self.together.add(ready)
            elif ready and self.turns[-1:] != list(ready):
                self.turns += ready
            await asyncio.sleep(0.02)


async def test_two_models_answer_in_turns_while_their_executors_are_killed(
    logs: Path, simulated: list[str], tmp_path: Path, seconds: float, seed: int
) -> None:
    dice = random.Random(seed)
    async with FleetProcesses(logs, TURNS) as fleet, fleet.client() as client:
        executors = [fleet.launch(name, sharing(simulated, name, tmp_path / "locks")) for name in NAMES]
        await both_known(fleet)
        loads = [Load(client, clients=6, seed=seed, model=model_of(name)) for name in NAMES]
        watch = Watch(client)
        watching = asyncio.create_task(watch.run())
        async with ProcessSupervisor(executors) as supervisor, asyncio.TaskGroup() as group:
            running = [group.create_task(load.run()) for load in loads]
            await _kill_for(seconds, executors, client, dice)
            for load in loads:
                load.stop()
            await asyncio.gather(*running)
            watching.cancel()
        assert supervisor.statuses.count(-9) > 0
        assert not watch.together, "both had the device at the same time"
        assert set(watch.turns) == set(NAMES)
        for load in loads:
            print(load.tally, watch.turns)
            assert load.tally.finished > 0
            assert load.tally.accepted == load.tally.finished + load.tally.cancelled
            assert not load.tally.refused


async def _kill_for(seconds: float, executors: list[ServiceProcess], client: AsyncClient, dice: random.Random) -> None:
    """Kill executors, every second time the one that is just waking up or falling asleep."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await asyncio.sleep(dice.uniform(1.0, 3.0))
        victim = dice.choice(executors).name
        if dice.random() < 0.5:
            victim = await eventually(lambda: _changing(client), within_s=30, what="an engine to change", every_s=0.01)
        found = next(each for each in executors if each.name == victim)
        if found.running:
            found.kill()


async def _changing(client: AsyncClient) -> str | None:
    """Return the instance whose engine wakes up or falls asleep now."""
    view = await client.list_instances()
    changing = (each.instance_id for each in view.instances if each.state_reason in ("waking", "falling asleep"))
    return next(changing, None)


async def test_a_scheduler_that_starts_anew_wakes_the_one_that_sleeps(
    logs: Path, simulated: list[str], tmp_path: Path
) -> None:
    flags = [*TURNS, "--state-dir", str(tmp_path / "state")]
    async with (
        FleetProcesses(logs, flags, listen=f"127.0.0.1:{free_port()}") as fleet,
        fleet.client() as client,
    ):
        for name in NAMES:
            fleet.launch(name, sharing(simulated, name, tmp_path / "locks"))
        await both_known(fleet)
        waiting = [asyncio.create_task(_answer_is_right(client, name, 300)) for name in NAMES]
        await asyncio.sleep(1.0)
        fleet.scheduler.kill()
        await fleet.scheduler.ended()
        fleet.scheduler.start()
        await asyncio.gather(*waiting)
        await both_known(fleet)
        for name in (*NAMES, *NAMES):
            await _answer_is_right(client, name, 20)


async def _answer_is_right(client: AsyncClient, name: str, tokens: int) -> None:
    prompt = f"Once upon a time, said {name},"
    done = await client.generate(prompt, model=model_of(name), max_tokens=tokens, temperature=0, deadline=60.0).result()
    wanted = await answer(prompt, Sampling(temperature=0, max_tokens=tokens), model=model_of(name))
    assert_tokens(list(done.token_ids), wanted.token_ids, name)
    assert done.instance_id == name
