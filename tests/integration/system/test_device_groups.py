"""Two models take turns on one device over the wire, as requests for them wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.runtime.engine_port import Sampling
from executor_svc.runtime.service import Exit
from sage_client import InstanceNotFoundError, InstanceState
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.integration.system.test_draining import running
from tests.support.eventually import eventually
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

S = InstanceState
TURNS = {"min_awake_s": 0.1, "turn_factor": 1.0, "drain_limit_s": 0.3}


@pytest.fixture
async def turns() -> AsyncIterator[LocalFleet]:
    """A scheduler whose engines take short turns."""
    async with LocalFleet(device_groups=TURNS) as made:
        yield made


def launch(
    fleet: LocalFleet, name: str, locks: Path, *, stuck_limit_s: float = 60.0, **simulated: Any
) -> LocalExecutor:
    """Start an executor that shares a device; its model has its name."""
    group = {"name": "gpu-0", "directory": locks, "stuck_limit_s": stuck_limit_s}
    options = {"sleep_mode": True, "sleep_s": 0.02, "wake_s": 0.05, **simulated}
    return fleet.launch(name, model=f"sim-{name}", settings={"device_group": group}, **options)


async def both(fleet: LocalFleet, locks: Path) -> None:
    """Start two, and wait until both were up once."""
    for name in ("a", "b"):
        launch(fleet, name, locks)
    await asyncio.gather(*(fleet.until(name, S.READY, S.SLEEPING) for name in ("a", "b")))
    await eventually(fleet._tokenizers_known, what="the tokenizers")


async def test_requests_for_both_models_are_answered_in_turns(turns: LocalFleet, tmp_path: Path) -> None:
    await both(turns, tmp_path)
    assert {each.device_group for each in (await turns.client.list_instances()).instances} == {"gpu-0"}
    for n in range(3):
        streams = {
            name: turns.client.generate(f"Number {n}", model=f"sim-{name}", temperature=0, max_tokens=60)
            for name in ("a", "b")
        }
        for name, stream in streams.items():
            done = await stream.result()
            sampling = Sampling(temperature=0, max_tokens=60)
            assert_tokens(done.token_ids, (await answer(f"Number {n}", sampling, model=f"sim-{name}")).token_ids)
            assert done.instance_id == name


async def test_a_long_request_goes_on_in_its_next_turn(turns: LocalFleet, tmp_path: Path) -> None:
    await both(turns, tmp_path)
    long = turns.client.generate("Once", model="sim-a", temperature=0, max_tokens=2_500)
    await running(long)
    short = await turns.client.generate("Twice", model="sim-b", max_tokens=5).result()
    assert short.instance_id == "b"
    done = await long.result()
    wanted = await answer("Once", Sampling(temperature=0, max_tokens=2_500), model="sim-a")
    assert_tokens(done.token_ids, wanted.token_ids)
    assert done.attempts > 1


async def test_an_executor_that_waits_for_its_turn_says_so_and_leaves_when_it_is_told(
    fleet: LocalFleet, tmp_path: Path
) -> None:
    """With the default settings the first one stays awake for five seconds."""
    launch(fleet, "a", tmp_path)
    await fleet.until("a", S.READY)
    waits = launch(fleet, "b", tmp_path)

    async def told() -> bool:
        try:
            return (await fleet.instance("b")).state_reason == "no place is free on gpu-0, taken by a"
        except InstanceNotFoundError:
            return False

    await eventually(told, what="the reason")
    waits.terminate()
    assert await waits.exit_status() == Exit.LEFT


async def test_the_place_of_one_whose_engine_dies_goes_to_the_other(turns: LocalFleet, tmp_path: Path) -> None:
    first = launch(turns, "a", tmp_path, wake_s=30.0)
    await turns.until("a", S.READY)
    launch(turns, "b", tmp_path)
    await turns.until("b", S.READY)
    await turns.client.wake_instance("a")
    await eventually(lambda: _reason(turns, "a", "waking"), what="a to wake")
    waits = asyncio.create_task(turns.client.generate("Once", model="sim-b", max_tokens=5).result())
    await first.end()
    assert (await waits).instance_id == "b"


@pytest.mark.parametrize("asks", ["for the other model", "for its own model"])
async def test_a_stuck_engine_ends_so_that_its_place_goes_to_those_who_are_asked_for(
    turns: LocalFleet, tmp_path: Path, asks: str
) -> None:
    first = launch(turns, "a", tmp_path, stuck_limit_s=0.5)
    await turns.until("a", S.READY)
    launch(turns, "b", tmp_path)
    await turns.until("b", S.READY)
    await turns.client.wake_instance("a")
    await turns.client.sleep_instance("b")
    await turns.until("a", S.READY)
    first.engine.inject(Fault(kind=FaultKind.HANG, after_tokens=20))
    stuck = turns.client.generate("Once", model="sim-a", temperature=0, max_tokens=60)
    await running(stuck)
    if asks == "for the other model":
        done = await turns.client.generate("Twice", model="sim-b", max_tokens=5).result()
        assert done.instance_id == "b"
    assert await first.exit_status() == Exit.ENGINE_DIED
    failed = await turns.instance("a")
    assert failed.state in (S.FAILED, S.LOST)
    assert "the engine died: it h" in failed.state_reason
    first.start()
    answered = await stuck.result()
    wanted = await answer("Once", Sampling(temperature=0, max_tokens=60), model="sim-a")
    assert_tokens(answered.token_ids, wanted.token_ids)


async def _reason(fleet: LocalFleet, name: str, reason: str) -> bool:
    return (await fleet.instance(name)).state_reason == reason
