"""Engines that share a device take turns: nothing is lost, and no two have its memory at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sage_telemetry.catalogue import DEVICE_GROUP_ORDERS
from scheduler_svc.control.sleep.instance_sleep import SleepState
from scheduler_svc.domain.device_groups.order import CAUSED, Action, Cause
from scheduler_svc.domain.errors import NoInstance
from scheduler_svc.domain.instance_spec import DeviceGroup
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.telemetry.fleet import FleetReader
from tests.unit.control.sharing_executor import Device, SharingExecutor, share
from tests.unit.control.world import World, expected

S = InstanceState
QUICK = {"min_awake_s": 1.0, "turn_factor": 4.0, "drain_limit_s": 10.0}
A, B = "model-a", "model-b"


async def two(world: World, **options: Any) -> tuple[Device, SharingExecutor, SharingExecutor]:
    """Let two engines start one after the other; ``b`` is awake, ``a`` sleeps."""
    device = Device()
    made = device, share(world, device, "a", **options), share(world, device, "b", **options)
    await world.advance(5)
    assert (world.state("a"), world.state("b")) == (S.SLEEPING, S.READY)
    return made


async def test_both_start_though_the_device_holds_one_and_nobody_asks() -> None:
    async with World(device_groups=QUICK) as world:
        device = Device()
        a, b = share(world, device, "a"), share(world, device, "b")
        assert (a.sleeps, b.sleeps, device.holders) == (SleepState.STARTING, SleepState.NOT_STARTED, ["a"])
        await world.advance(1)
        assert (world.state("a"), world.state("b")) == (S.READY, S.DOWNLOADING)
        await world.advance(4)
        assert (world.state("a"), world.state("b"), device.holders) == (S.SLEEPING, S.READY, ["b"])
        assert world.plane.scheduler.start_s(B) == pytest.approx(0.5, abs=0.01), "without the wait for a place"
        await world.advance(60)
        assert (a.sleep_orders, b.sleep_orders) == ([True], []), "nobody asks"


async def test_the_metric_of_orders_begins_at_zero() -> None:
    async with World() as world:
        plane = world.plane
        reader = FleetReader(plane.scheduler, plane.clock, plane.requests, device_groups=plane.device_groups)
        shown = [((action.value, cause.value), 0) for action, cause in CAUSED]
        assert reader.read()[DEVICE_GROUP_ORDERS] == shown


async def test_requests_for_both_models_all_end_right() -> None:
    async with World(device_groups=QUICK) as world:
        device, a, b = await two(world)
        readers = []
        for n in range(12):
            readers.append(await world.submit(f"r{n}", model=(A, B)[n % 2], max_tokens=60))
            await world.advance(1)
            assert len(device.holders) <= 1
        await world.advance(60)
        assert all(each.token_ids == expected(60) for each in readers)
        assert {each.instances[-1] for each in readers} == {"a", "b"}
        assert all(len(each.instances) == 1 for each in readers), "nothing was interrupted"
        assert len(a.sleep_orders) > 2
        assert len(b.sleep_orders) > 2
        world.assert_all_room_is_free()
        counts = world.plane.device_groups.counts
        assert counts[Action.WAKE, Cause.WAITING] == a.sleep_orders.count(False) + b.sleep_orders.count(False)
        assert sum(counts[Action.DRAIN, cause] for cause in Cause) >= counts[Action.WAKE, Cause.WAITING]


async def test_a_request_waits_for_its_turn_without_asking_to() -> None:
    async with World(device_groups=QUICK) as world:
        await two(world)
        busy = await world.submit("busy", model=B, max_tokens=300)
        patient = await world.submit("patient", model=A)
        because = world.plane.explainer.explain(patient.live.key).waiting_because
        assert because == f"no READY instance of {A!r}: 1 sleeping; a gets its turn on gpu-0"
        assert world.plane.intake.expected_wait_s(patient.live) == pytest.approx(0.3)
        await world.advance(10)
        assert (busy.token_ids, patient.token_ids) == (expected(300), expected(20))


async def test_what_does_not_end_in_the_drain_s_time_goes_on_in_later_turns_however_many() -> None:
    """Each turn of the endless one lasts 2 s and a drain of 1 s, at 100 tokens a second."""
    async with World(device_groups={**QUICK, "drain_limit_s": 1.0}, queue={"max_attempts": 3}) as world:
        await two(world)
        long = await world.submit("long", model=B, max_tokens=3_000)
        short = []
        for n in range(60):
            short.append(await world.submit(f"s{n}", model=A, max_tokens=10))
            await world.advance(1)
        await world.advance(60)
        assert long.token_ids == expected(3_000)
        assert len(long.instances) > 4
        assert all(each.token_ids == expected(10) for each in short)
        counts = world.plane.device_groups.counts
        assert counts[Action.GIVE_BACK, Cause.DRAIN_LIMIT] == len(long.instances) - 1
        assert counts.keys() == set(CAUSED)


async def test_one_that_is_killed_while_it_wakes_comes_back_and_serves_what_waits() -> None:
    async with World(device_groups=QUICK, queue={"orphan_timeout_s": 20}) as world:
        device, a, _ = await two(world, wake_s=5.0)
        waits = await world.submit("r", model=A)
        await world.advance(3)
        assert (a.sleeps, device.holders) == (SleepState.WAKING, ["a"])
        a.crash()
        assert device.holders == []
        other = await world.submit("other", model=B)
        await world.advance(15)
        assert world.state("a") is S.LOST
        assert other.token_ids == expected(20), "the place of the one that is gone is free"
        a.connect()
        await world.advance(10)
        assert waits.token_ids == expected(20)


async def test_one_gets_its_turn_for_what_another_of_its_model_cannot_serve() -> None:
    """The other one is READY and has nothing to do; the request need not ask to wait, and is no orphan."""
    async with World(device_groups=QUICK, queue={"orphan_timeout_s": 1}) as world:
        device = Device()
        able = share(world, device, "able", model=A, adapters=frozenset({"sql"}))
        await world.advance(2)
        plain = share(world, device, "plain", model=A)
        world.plane.instances.orders.sleep("able", "so that the other one starts")
        await world.advance(5)
        assert (world.state("able"), world.state("plain")) == (S.SLEEPING, S.READY)
        running = await world.submit("running", model=A, max_tokens=300)
        reader = await world.submit("r", model=A, adapter="sql")
        await world.advance(10)
        assert (running.token_ids, reader.token_ids) == (expected(300), expected(20))
        assert (running.instances, reader.instances) == (["plain"], ["able"])
        assert (plain.sleep_orders, able.sleep_orders, device.holders) == ([True], [True, False], ["able"])


async def test_one_of_two_groups_wakes_for_what_both_could_serve() -> None:
    async with World(device_groups=QUICK) as world:
        sql = frozenset({"sql"})
        made = [share(world, Device(), name, model=A, host=name, adapters=sql) for name in ("a", "b")]
        world.add("plain", model=A)
        await world.advance(2)
        for each in made:
            world.plane.instances.orders.sleep(each.instance_id, "nobody asks")
        await world.advance(2)
        reader = await world.submit("r", model=A, adapter="sql")
        await world.advance(5)
        assert reader.token_ids == expected(20)
        assert [each.sleep_orders for each in made] == [[True, False], [True]]


async def test_the_time_in_which_another_has_its_turn_makes_no_orphans() -> None:
    async with World(device_groups={**QUICK, "drain_limit_s": 600.0}, queue={"orphan_timeout_s": 5}) as world:
        await two(world)
        await world.submit("long", model=B, max_tokens=3_000)
        waits = await world.submit("r", model=A)
        await world.advance(20)
        assert waits.error is None
        await world.advance(20)
        assert waits.token_ids == expected(20)


async def test_a_model_whose_only_instance_an_operator_drained_is_not_there() -> None:
    async with World(device_groups=QUICK) as world:
        await two(world)
        world.plane.instances.orders.drain("a", "maintenance", by_operator=True)
        await world.advance(1)
        with pytest.raises(NoInstance):
            await world.submit("r", model=A)


async def test_requests_do_not_wait_for_ever_for_an_engine_that_does_not_start_and_have_it_tried_again() -> None:
    async with World(device_groups=QUICK, queue={"orphan_timeout_s": 5}) as world:
        _, a, _ = await two(world)
        waits = await world.submit("waits", model=A)
        for _ in range(20):
            a.crash()
            await world.advance(0.3)
            a.connect()
            await world.advance(0.3)
        assert isinstance(waits.error, NoInstance)
        later = await world.submit("later", model=A)
        await world.advance(4)
        assert later.token_ids == expected(20)


async def test_an_executor_that_starts_anew_while_it_waits_for_a_place_did_not_fail_to_start() -> None:
    async with World(device_groups={**QUICK, "drain_limit_s": 600.0}, queue={"orphan_timeout_s": 5}) as world:
        _, a, _ = await two(world)
        await world.submit("long", model=B, max_tokens=3_000)
        waits = await world.submit("waits", model=A)
        for _ in range(2):
            a.crash()
            await world.advance(0.3)
            a.connect()
            await world.advance(0.3)
        assert a.sleeps is SleepState.NOT_STARTED
        await world.advance(15)
        assert waits.error is None
        await world.advance(25)
        assert waits.token_ids == expected(20)


async def test_a_model_that_was_never_up_gets_its_turn_beside_two_busy_ones_after_a_failed_start() -> None:
    async with World(device_groups={**QUICK, "drain_limit_s": 1.0}) as world:
        device, *_ = await two(world)
        c = share(world, device, "c")
        while "c" not in device.holders:
            await world.advance(0.1)
        c.crash()  # while its engine starts
        for name, model in (("busy-a", A), ("busy-b", B)):
            for n in range(3):
                await world.submit(f"{name}-{n}", model=model, max_tokens=4_000)
        await world.advance(1)
        c.start_poll_s = 4.0
        c.connect()
        assert c.sleeps is SleepState.NOT_STARTED
        waits = asyncio.create_task(world.submit("waits", model="model-c", wait_for_instance=True))
        await world.advance(60)
        assert waits.done(), "its model was up once"
        assert (await waits).token_ids == expected(20)


async def test_operators_put_one_to_sleep_and_wake_another() -> None:
    async with World(device_groups=QUICK) as world:
        device, _, b = await two(world)
        running = await world.submit("running", model=B, max_tokens=200)
        await world.advance(0.1)
        world.plane.instances.orders.sleep("b", "")
        await world.advance(1)
        assert world.state("b") is S.DRAINING, "the group does not lift an operator's order"
        await world.advance(3)
        assert (world.state("b"), running.token_ids, device.holders) == (S.SLEEPING, expected(200), [])

        world.plane.instances.orders.wake("b")
        await world.advance(1)
        assert (world.state("b"), device.holders) == (S.READY, ["b"])
        world.plane.instances.orders.wake("a")
        await world.advance(5)
        assert (world.state("a"), world.state("b"), device.holders) == (S.READY, S.SLEEPING, ["a"])
        assert b.sleep_orders == [True, False, True]


async def test_a_drain_is_lifted_when_what_waited_for_the_other_is_cancelled() -> None:
    async with World(device_groups=QUICK) as world:
        await two(world)
        running = await world.submit("running", model=B, max_tokens=1_000)
        waits = await world.submit("waits", model=A)
        await world.advance(3)
        assert world.state("b") is S.DRAINING
        assert "is wanted" in world.plane.scheduler.instance("b").state_reason
        await waits.go_away()
        world.plane.intake.cancel(waits.live.key, "not wanted any more")
        await world.advance(1)
        assert world.state("b") is S.READY
        await world.advance(10)
        assert running.token_ids == expected(1_000)


async def test_a_drain_that_an_operator_wants_too_is_not_lifted() -> None:
    async with World(device_groups=QUICK) as world:
        await two(world)
        await world.submit("running", model=B, max_tokens=1_000)
        waits = await world.submit("waits", model=A)
        await world.advance(3)
        assert world.state("b") is S.DRAINING
        world.plane.instances.orders.sleep("b", "its fan is loud")
        await waits.go_away()
        world.plane.intake.cancel(waits.live.key, "not wanted any more")
        await world.advance(1)
        assert world.state("b") is S.DRAINING
        await world.advance(15)
        assert world.state("b") is S.SLEEPING


async def test_one_that_an_operator_puts_to_sleep_keeps_others_waiting_for_no_longer_than_the_drain_s_time() -> None:
    async with World(device_groups=QUICK) as world:
        await two(world)
        running = await world.submit("running", model=B, max_tokens=3_000)
        await world.advance(0.1)
        world.plane.instances.orders.sleep("b", "its fan is loud")
        waits = await world.submit("waits", model=A)
        await world.advance(15)
        assert waits.token_ids == expected(20)
        await world.advance(60)
        assert running.token_ids == expected(3_000), "in the next turn"


async def test_one_that_lost_its_connection_while_it_drained_takes_work_again() -> None:
    async with World(device_groups=QUICK) as world:
        _, _, b = await two(world)
        await world.submit("running", model=B, max_tokens=1_000)
        waits = await world.submit("waits", model=A)
        await world.advance(3)
        assert world.state("b") is S.DRAINING
        b.disconnect()
        assert world.state("b") is S.SUSPECT
        await waits.go_away()
        world.plane.intake.cancel(waits.live.key, "not wanted any more")
        await world.advance(0.2)
        b.connect()
        await world.advance(1)
        assert world.state("b") is S.READY


async def test_an_order_that_was_lost_with_its_session_is_given_again() -> None:
    async with World(device_groups=QUICK) as world:
        _, a, b = await two(world)
        b.disconnect()
        waits = await world.submit("waits", model=A)
        await world.advance(0.15)
        assert world.state("b") is S.SLEEPING
        assert b.sleeps is SleepState.AWAKE, "it was not told"
        b.connect()
        await world.advance(3)
        assert (b.sleeps, a.sleeps, waits.token_ids) == (SleepState.ASLEEP, SleepState.AWAKE, expected(20))


async def test_two_fit_on_a_device_of_two_places() -> None:
    async with World(device_groups=QUICK) as world:
        device = Device(places=2)
        for name in ("a", "b", "c"):
            share(world, device, name)
        await world.advance(10)
        states = [world.state(name) for name in ("a", "b", "c")]
        assert sorted(each.value for each in states) == ["ready", "ready", "sleeping"]
        readers = [await world.submit(name, model=f"model-{name}") for name in ("a", "b", "c")]
        await world.advance(10)
        assert all(each.token_ids == expected(20) for each in readers)


async def test_groups_of_one_name_on_two_hosts_do_not_wait_for_each_other() -> None:
    async with World(device_groups=QUICK) as world:
        share(world, Device(), "a")
        share(world, Device(), "b", host="other")
        await world.advance(5)
        assert (world.state("a"), world.state("b")) == (S.READY, S.READY)


async def test_one_that_comes_back_asleep_is_called_up_before_the_group_is_looked_at() -> None:
    async with World() as world:
        made = SharingExecutor(
            world=world,
            instance_id="a",
            model=A,
            can_sleep=True,
            device_group=DeviceGroup(name="gpu-0"),
            sleeps=SleepState.ASLEEP,
        )
        world.executors["a"] = made
        made.connect()
        assert world.state("a") is S.SLEEPING
        waits = await world.submit("r", model=A)
        await world.advance(3)
        assert waits.token_ids == expected(20)
