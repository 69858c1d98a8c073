"""Instances sleep once nothing runs there, and work again once their executors say that the engine is awake."""

from __future__ import annotations

import pytest

from scheduler_svc.control.sleep.instance_sleep import SleepReport, SleepState
from scheduler_svc.domain.errors import InvalidRequest, InvalidTransition, NoInstance
from scheduler_svc.domain.instance_state import STARTING, InstanceState
from scheduler_svc.domain.sleepers import LOOKS
from tests.unit.control.world import ModelledExecutor, World, expected

S = InstanceState


def says(a: ModelledExecutor, state: SleepState, reason: str = "", *, number: int | None = None) -> None:
    """Have an executor report its engine's sleep; ``number``: of the order that it knows, by default the last."""
    assert a.session is not None
    known = len(a.sleep_orders) if number is None else number
    a.world.plane.instances.reports.sleep_report(a.session, SleepReport(state=state, number=known, reason=reason))


def sleeper(world: World, instance_id: str = "a") -> ModelledExecutor:
    """Add an executor whose engine can sleep, and is awake."""
    made = world.add(instance_id, can_sleep=True)
    says(made, SleepState.AWAKE)
    assert world.state(instance_id) is S.READY
    return made


def reason_of(world: World, instance_id: str = "a") -> str:
    return world.plane.scheduler.instance(instance_id).state_reason


async def test_an_instance_sleeps_once_its_requests_ended_and_serves_once_it_is_awake() -> None:
    async with World() as world:
        a = sleeper(world)
        running = await world.submit("running", max_tokens=50)
        await world.advance(0.1)
        world.plane.instances.orders.sleep("a", "nobody asks")
        assert world.state("a") is S.DRAINING
        assert a.sleep_orders == [], "never under a request"
        await world.advance(1)
        assert running.token_ids == expected(50)
        assert (world.state("a"), a.sleep_orders) == (S.SLEEPING, [True])
        for state in (SleepState.FALLING_ASLEEP, SleepState.ASLEEP):
            says(a, state)
            assert (world.state("a"), reason_of(world)) == (S.SLEEPING, state.value)

        await world.advance(10)
        assert a.sleep_orders == [True], "nobody asks"
        patient = await world.submit("patient", max_tokens=5, wait_for_instance=True)
        await world.advance(1)
        assert not patient.instances
        assert (world.state("a"), a.sleep_orders) == (S.SLEEPING, [True, False]), "it is woken"
        says(a, SleepState.WAKING)
        says(a, SleepState.AWAKE)
        assert world.state("a") is S.READY
        await world.advance(1)
        assert patient.token_ids == expected(5)


async def test_requests_that_do_not_wait_are_refused_while_all_sleep() -> None:
    async with World() as world:
        sleeper(world)
        world.plane.instances.orders.sleep("a", "")
        with pytest.raises(NoInstance, match="1 sleeping"):
            await world.submit("r")


async def test_one_that_is_woken_while_it_drains_goes_on() -> None:
    async with World() as world:
        a = sleeper(world)
        running = await world.submit("running", max_tokens=50)
        await world.advance(0.1)
        world.plane.instances.orders.sleep("a", "")
        world.plane.instances.orders.wake("a")
        assert world.state("a") is S.READY
        await world.advance(1)
        assert (running.token_ids, a.sleep_orders, world.state("a")) == (expected(50), [], S.READY)


async def test_one_that_is_put_to_sleep_while_it_wakes_sleeps_again() -> None:
    async with World() as world:
        a = sleeper(world)
        world.plane.instances.orders.sleep("a", "")
        says(a, SleepState.ASLEEP)
        world.plane.instances.orders.wake("a")
        says(a, SleepState.WAKING)
        world.plane.instances.orders.sleep("a", "not needed")
        assert (a.sleep_orders, reason_of(world)) == ([True, False, True], "to sleep: not needed")
        says(a, SleepState.AWAKE)
        says(a, SleepState.ASLEEP)
        assert (world.state("a"), reason_of(world)) == (S.SLEEPING, "asleep")


async def test_what_an_executor_said_before_it_knew_the_order_does_not_count() -> None:
    async with World() as world:
        a = sleeper(world)
        world.plane.instances.orders.sleep("a", "")
        says(a, SleepState.AWAKE, number=0)
        says(a, SleepState.AWAKE, "1 attempts run")
        assert (world.state("a"), reason_of(world)) == (S.SLEEPING, "is to fall asleep: 1 attempts run")
        says(a, SleepState.ASLEEP)
        world.plane.instances.orders.wake("a")
        says(a, SleepState.ASLEEP, number=1)
        assert reason_of(world) == "wakes up"


async def test_an_executor_that_comes_back_gets_nothing_before_it_says_whether_its_engine_sleeps() -> None:
    async with World() as world:
        a = sleeper(world)
        world.plane.instances.orders.sleep("a", "")
        says(a, SleepState.ASLEEP)
        a.disconnect()
        a.connect()
        assert world.state("a") is S.SLEEPING, "the same engine, the same scheduler"

        b = world.add("b", can_sleep=True)
        assert world.state("b") is S.SUSPECT
        await world.advance(1)
        assert world.state("b") is S.SUSPECT
        says(b, SleepState.ASLEEP, number=0)
        assert (world.state("b"), reason_of(world, "b")) == (S.SLEEPING, "asleep, as was ordered before")
        world.plane.instances.orders.wake("b")
        assert b.sleep_orders == [False]
        says(b, SleepState.AWAKE)
        assert world.state("b") is S.READY


async def test_a_cordon_outlives_a_sleep() -> None:
    async with World() as world:
        a = sleeper(world)
        world.plane.instances.orders.sleep("a", "")
        says(a, SleepState.ASLEEP)
        world.plane.instances.orders.drain("a", "maintenance", by_operator=True)
        assert world.state("a") is S.SLEEPING
        world.plane.instances.orders.wake("a")
        says(a, SleepState.AWAKE)
        assert world.state("a") is S.DRAINED
        world.plane.instances.orders.resume("a")
        assert world.state("a") is S.READY


async def test_one_that_an_operator_resumes_is_not_to_sleep_any_more() -> None:
    async with World() as world:
        a = sleeper(world)
        await world.submit("running", max_tokens=50)
        await world.advance(0.1)
        world.plane.instances.orders.sleep("a", "")
        world.plane.instances.orders.resume("a")
        world.plane.instances.orders.drain("a", "", by_operator=True)
        await world.advance(1)
        assert (world.state("a"), a.sleep_orders) == (S.DRAINED, [])


async def test_a_resume_of_one_that_sleeps_changes_nothing_of_its_sleep() -> None:
    async with World() as world:
        a = sleeper(world)
        world.plane.instances.orders.sleep("a", "nobody asks")
        says(a, SleepState.ASLEEP)
        with pytest.raises(InvalidTransition):
            world.plane.instances.orders.resume("a")
        patient = await world.submit("patient", max_tokens=5, wait_for_instance=True)
        await world.advance(1)
        assert a.sleep_orders == [True, False], "it is woken all the same"
        says(a, SleepState.AWAKE)
        await world.advance(1)
        assert patient.token_ids == expected(5)


async def test_the_end_of_a_cordon_wakes_nobody_and_what_waits_does() -> None:
    async with World() as world:
        a = sleeper(world)
        world.plane.instances.orders.drain("a", "maintenance", by_operator=True)
        world.plane.instances.orders.sleep("a", "nobody asks")
        says(a, SleepState.ASLEEP)
        world.plane.instances.orders.resume("a")
        await world.advance(1)
        assert (world.state("a"), a.sleep_orders) == (S.SLEEPING, [True])
        await world.submit("patient", max_tokens=5, wait_for_instance=True)
        await world.advance(1)
        assert a.sleep_orders == [True, False]


async def test_one_that_leaves_is_not_woken() -> None:
    async with World() as world:
        a, b = sleeper(world, "a"), sleeper(world, "b")
        for name, each in (("a", a), ("b", b)):
            world.plane.instances.orders.sleep(name, "nobody asks")
            says(each, SleepState.ASLEEP)
        world.plane.instances.orders.drain("a", "it ends", by_operator=False)
        await world.submit("patient", max_tokens=5, wait_for_instance=True)
        await world.advance(1)
        assert (a.sleep_orders, b.sleep_orders) == ([True], [True, False])


async def test_an_executor_that_is_killed_while_it_wakes_is_lost_and_what_waits_goes_elsewhere() -> None:
    async with World() as world:
        a = sleeper(world)
        world.plane.instances.orders.sleep("a", "")
        says(a, SleepState.ASLEEP)
        waits = await world.submit("r", max_tokens=5, wait_for_instance=True)
        world.plane.instances.orders.wake("a")
        a.disconnect()
        await world.advance(60)
        assert world.state("a") is S.LOST
        sleeper(world, "b")
        await world.advance(1)
        assert waits.token_ids == expected(5)


async def test_what_cannot_sleep_is_refused_by_name() -> None:
    async with World() as world:
        a = world.add("a")
        with pytest.raises(InvalidRequest, match="cannot sleep"):
            world.plane.instances.orders.sleep("a", "")
        with pytest.raises(InvalidRequest, match="cannot sleep"):
            world.plane.instances.orders.wake("a")
        assert a.session is not None
        world.plane.instances.sessions.goodbye(a.session, "")
        with pytest.raises(InvalidTransition, match=r"lost.*sleeping"):
            world.plane.instances.orders.sleep("a", "")


async def test_one_instance_is_woken_for_what_waits_and_no_cordoned_one() -> None:
    async with World() as world:
        made = [sleeper(world, name) for name in ("a", "b", "c")]
        world.plane.instances.orders.drain("a", "", by_operator=True)
        for each in made:
            world.plane.instances.orders.sleep(each.instance_id, "")
            says(each, SleepState.ASLEEP)
        await world.submit("r", wait_for_instance=True)
        await world.advance(5)
        assert [each.sleep_orders for each in made] == [[True], [True, False], [True]]


async def test_nobody_is_woken_while_another_instance_serves_the_model() -> None:
    async with World() as world:
        a = sleeper(world)
        world.add("b", max_running=1)
        world.plane.instances.orders.sleep("a", "")
        says(a, SleepState.ASLEEP)
        for n in range(5):
            await world.submit(f"r{n}", max_tokens=300)
        await world.advance(2)
        assert a.sleep_orders == [True]


async def test_one_is_woken_for_what_no_ready_instance_can_serve() -> None:
    async with World() as world:
        plain = sleeper(world, "plain")
        able = world.add("able", can_sleep=True, adapters=frozenset({"sql"}), max_model_len=8_192)
        says(able, SleepState.AWAKE)
        world.add("ready")
        for each in (plain, able):
            world.plane.instances.orders.sleep(each.instance_id, "nobody asks")
            says(each, SleepState.ASLEEP)
        readers = [
            await world.submit("adapter", max_tokens=5, adapter="sql", wait_for_instance=True),
            await world.submit("long", max_tokens=5_000, wait_for_instance=True),
        ]
        because = world.plane.explainer.explain(readers[0].live.key).waiting_because
        assert because.endswith("does not have the adapter 'sql' (has: none); able can, and sleeps")
        await world.advance(1)
        assert (plain.sleep_orders, able.sleep_orders) == ([True], [True, False])
        assert not any(each.instances for each in readers)
        says(able, SleepState.AWAKE)
        await world.advance(60)
        assert [each.token_ids for each in readers] == [expected(5), expected(5_000)]
        assert [each.instances for each in readers] == [["able"], ["able"]]


async def test_many_requests_that_nobody_can_serve_hide_no_other_one_that_a_sleeper_can() -> None:
    async with World() as world:
        able = world.add("able", can_sleep=True, adapters=frozenset({"sql"}))
        says(able, SleepState.AWAKE)
        world.add("ready")
        gone = world.add("gone", adapters=frozenset({"gone"}))
        assert gone.session is not None
        world.plane.instances.orders.sleep("able", "nobody asks")
        says(able, SleepState.ASLEEP)
        for n in range(LOOKS):
            await world.submit(f"r{n}", tenant="first", adapter="gone", wait_for_instance=True)
        world.plane.instances.sessions.goodbye(gone.session, "")
        await world.advance(0.1)
        await world.submit("r", tenant="second", adapter="sql", wait_for_instance=True)
        await world.advance(1)
        assert able.sleep_orders == [True, False]


async def test_one_that_cannot_be_woken_is_told_once_and_another_one_is_tried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its executor says of the engine that sleeps that it cannot; the checks of all other instances go on."""
    async with World() as world:
        a, b = sleeper(world, "a"), sleeper(world, "b")
        for each in (a, b):
            world.plane.instances.orders.sleep(each.instance_id, "nobody asks")
            says(each, SleepState.ASLEEP)
        a.can_sleep = False
        a.ready()
        assert world.state("a") is S.SLEEPING
        await world.submit("r", wait_for_instance=True)
        await world.advance(1)
        assert (a.sleep_orders, b.sleep_orders) == ([True], [True, False])
        assert sum("instance a cannot be woken" in each for each in caplog.messages) == 1


async def test_a_sleeper_that_could_not_serve_what_waits_is_not_woken() -> None:
    async with World() as world:
        plain = sleeper(world, "plain")
        able = world.add("able", can_sleep=True, adapters=frozenset({"sql"}))
        says(able, SleepState.AWAKE)
        for each in (plain, able):
            world.plane.instances.orders.sleep(each.instance_id, "nobody asks")
            says(each, SleepState.ASLEEP)
        await world.submit("r", adapter="sql", wait_for_instance=True)
        await world.advance(1)
        assert (plain.sleep_orders, able.sleep_orders) == ([True], [True, False])


async def test_nobody_is_woken_for_what_an_instance_serves_that_is_back_in_a_moment() -> None:
    async with World(instance={"reconnect_grace_s": 5.0}) as world:
        sql = frozenset({"sql"})
        a = world.add("a", can_sleep=True, adapters=sql)
        says(a, SleepState.AWAKE)
        world.plane.instances.orders.sleep("a", "nobody asks")
        says(a, SleepState.ASLEEP)
        world.add("plain")
        able = world.add("able", adapters=sql)
        able.disconnect()
        await world.advance(0.1)
        assert world.state("able") is S.SUSPECT
        waits = await world.submit("r", max_tokens=5, adapter="sql", wait_for_instance=True)
        await world.advance(1)
        assert a.sleep_orders == [True]
        able.connect()
        await world.advance(1)
        assert waits.token_ids == expected(5)


async def test_an_instance_that_starts_is_no_reason_to_leave_the_others_asleep() -> None:
    async with World() as world:
        a = sleeper(world)
        world.plane.instances.orders.sleep("a", "nobody asks")
        says(a, SleepState.ASLEEP)
        ModelledExecutor(world=world, instance_id="b").register()
        assert world.state("b") in STARTING
        waits = await world.submit("r", max_tokens=5, wait_for_instance=True)
        await world.advance(1)
        assert a.sleep_orders == [True, False]
        says(a, SleepState.AWAKE)
        await world.advance(1)
        assert (waits.token_ids, waits.instances) == (expected(5), ["a"])


async def test_a_stalled_instance_is_no_reason_to_leave_the_others_asleep() -> None:
    async with World() as world:
        a = sleeper(world)
        world.plane.instances.orders.sleep("a", "nobody asks")
        says(a, SleepState.ASLEEP)
        b = world.add("b")
        stuck = await world.submit("stuck", max_tokens=50)
        await world.advance(0.1)
        b.hung = True
        await world.advance(60)
        assert (world.state("b"), a.sleep_orders) == (S.STALLED, [True, False])
        says(a, SleepState.AWAKE)
        await world.advance(2)
        assert stuck.token_ids == expected(50)


async def test_requests_are_told_what_waking_took_the_last_time() -> None:
    async with World() as world:
        a = sleeper(world)
        assert a.session is not None
        world.plane.instances.reports.sleep_report(a.session, SleepReport(state=SleepState.AWAKE, number=0, wake_s=2.5))
        world.plane.instances.orders.sleep("a", "")
        says(a, SleepState.ASLEEP)
        patient = await world.submit("patient", wait_for_instance=True)
        assert world.plane.intake.expected_wait_s(patient.live) == 2.5
