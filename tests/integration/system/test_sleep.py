"""Executors sleep and wake over the wire: nothing is lost, and what waits runs when the engine is awake."""

from __future__ import annotations

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.runtime.engine_port import Sampling
from executor_svc.runtime.service import Exit
from sage_client import InstanceState, InvalidRequestError, NoInstanceError
from tests.integration.system.local_fleet import LocalFleet
from tests.integration.system.test_draining import running
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens


async def test_an_instance_finishes_what_it_has_sleeps_and_serves_again_when_it_is_woken(fleet: LocalFleet) -> None:
    executor = await fleet.add("a", sleep_mode=True, sleep_s=0.05, wake_s=0.05)
    stream = fleet.client.generate("Once", temperature=0, max_tokens=80)
    await running(stream)
    ordered = await fleet.client.sleep_instance("a", reason="nobody asks")
    assert (ordered.state, ordered.state_reason) == (InstanceState.DRAINING, "to sleep: nobody asks")
    done = await stream.result()
    wanted = (await answer("Once", Sampling(temperature=0, max_tokens=80))).token_ids
    assert_tokens(done.token_ids, wanted)
    assert done.attempts == 1
    asleep = await fleet.until("a", InstanceState.SLEEPING)
    assert asleep.assigned == 0
    with pytest.raises(NoInstanceError, match="1 sleeping"):
        await fleet.client.generate("Once", max_tokens=2).result()

    assert (await fleet.client.wake_instance("a")).state is InstanceState.SLEEPING
    awake = await fleet.until("a", InstanceState.READY)
    assert asleep.wake_s is None
    assert awake.wake_s is not None
    assert awake.wake_s >= 0.05
    again = await fleet.client.generate("Once", temperature=0, max_tokens=80).result()
    assert_tokens(again.token_ids, wanted)
    assert again.usage.cached_prompt_tokens == 0
    assert executor.running


async def test_one_whose_engine_dies_while_it_wakes_comes_back_awake(fleet: LocalFleet) -> None:
    executor = await fleet.add("a", sleep_mode=True, sleep_s=0.0, wake_s=60.0)
    await fleet.client.sleep_instance("a")
    await fleet.until("a", InstanceState.SLEEPING)
    await fleet.client.wake_instance("a")
    executor.engine.inject(Fault(kind=FaultKind.DIE))
    assert await executor.exit_status() == Exit.ENGINE_DIED
    executor.start()
    await fleet.until("a", InstanceState.READY)
    assert (await fleet.client.generate("Once", max_tokens=2).result()).instance_id == "a"


async def test_an_engine_that_cannot_sleep_is_named(fleet: LocalFleet) -> None:
    await fleet.add("a")
    with pytest.raises(InvalidRequestError, match="the engine of a cannot sleep"):
        await fleet.client.sleep_instance("a")


async def test_a_request_that_waits_wakes_an_instance(fleet: LocalFleet) -> None:
    await fleet.add("a", sleep_mode=True, sleep_s=0.05, wake_s=0.05)
    await fleet.client.sleep_instance("a")
    await fleet.until("a", InstanceState.SLEEPING)
    done = await fleet.client.generate("Once", max_tokens=2, no_instance="wait", deadline=20).result()
    assert (done.instance_id, done.attempts) == ("a", 1)
