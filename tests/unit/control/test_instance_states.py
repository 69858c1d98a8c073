"""From every state an executor may go away or say that its engine died, and come back after that."""

from __future__ import annotations

import pytest

from scheduler_svc.control.sleep.instance_sleep import SleepReport, SleepState
from scheduler_svc.domain.instance_state import GONE, STARTING, InstanceState
from tests.unit.control.test_sessions import registration
from tests.unit.control.world import ModelledExecutor, World

S = InstanceState
IN_ORDER = [state for state in S if state in STARTING]
WITH_AN_EXECUTOR = [state for state in InstanceState if state not in GONE]


async def bring_to(world: World, state: InstanceState) -> ModelledExecutor:
    """An executor whose instance came to this state as it does in service."""
    if state in STARTING:
        a = ModelledExecutor(world=world, instance_id="a")
        world.executors["a"] = a
        welcome = world.plane.instances.registrar.register(registration(a), a)
        a.session, a.connected = world.plane.instances.sessions.by_id(welcome.session_id), True
        world.plane.instances.sessions.outputs_opened(welcome.session_id)
        world.plane.instances.reports.engine_status(a.session, state, 0.5, "", None)
    else:
        a = world.add("a", can_sleep=state is S.SLEEPING)
    if state is S.SLEEPING:
        assert a.session is not None
        world.plane.instances.reports.sleep_report(a.session, SleepReport(state=SleepState.AWAKE, number=0))
        world.plane.instances.orders.sleep("a", "nobody asks")
    if state in (S.STALLED, S.DRAINING):
        await world.submit("r", max_tokens=2_000)
        await world.advance(0.3)
    if state is S.STALLED:
        a.hung = True
        await world.advance(12)
    if state in (S.DRAINING, S.DRAINED):
        world.plane.instances.orders.drain("a", "maintenance", by_operator=False)
    if state is S.SUSPECT:
        a.disconnect()
    assert world.state("a") is state
    return a


@pytest.mark.parametrize("state", WITH_AN_EXECUTOR)
async def test_an_executor_that_goes_away_is_lost_and_registers_anew(state: InstanceState) -> None:
    async with World() as world:
        a = await bring_to(world, state)
        assert a.session is not None
        world.plane.instances.sessions.goodbye(a.session, "scaled down")
        assert world.state("a") is S.LOST
        a.hung = a.connected = False
        world.plane.instances.registrar.register(registration(a), a)
        assert world.state("a") is S.DOWNLOADING


@pytest.mark.parametrize("state", WITH_AN_EXECUTOR)
@pytest.mark.parametrize("again", IN_ORDER)
async def test_an_engine_that_dies_in_any_state_is_failed_and_may_start_again(
    state: InstanceState, again: InstanceState
) -> None:
    async with World() as world:
        a = await bring_to(world, state)
        assert a.session is not None
        world.plane.instances.reports.engine_status(a.session, S.FAILED, None, "out of memory", None)
        assert world.state("a") is S.FAILED
        world.plane.instances.reports.engine_status(a.session, again, 0.1, "", None)
        assert world.state("a") is again


@pytest.mark.parametrize("state", IN_ORDER)
@pytest.mark.parametrize("reported", IN_ORDER)
async def test_an_engine_that_starts_may_report_its_steps_in_any_order(
    state: InstanceState, reported: InstanceState
) -> None:
    async with World() as world:
        a = await bring_to(world, state)
        assert a.session is not None
        world.plane.instances.reports.engine_status(a.session, reported, 0.2, "", None)
        assert world.state("a") is reported


async def test_a_drain_that_is_lifted_while_work_is_in_flight_makes_it_ready() -> None:
    async with World() as world:
        await bring_to(world, S.DRAINING)
        world.plane.instances.orders.resume("a")
        assert world.state("a") is S.READY
