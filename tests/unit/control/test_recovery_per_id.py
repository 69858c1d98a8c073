"""A missing instance holds up only the requests that may be there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler_svc.control.adoption import handing_over
from scheduler_svc.control.adoption.restoration import SWEEP_S
from scheduler_svc.control.attempts.request_runner import PREFILL_SAMPLING
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.subscription import Subscription
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.errors import OutputLost, Recovering, RequestNotFound
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.request import RequestKey, RequestState
from tests.unit.control.detached_world import DetachedWorld
from tests.unit.control.test_adoption import Next, attach, held, orders
from tests.unit.control.world import MODEL, World


def key(request_id: str) -> RequestKey:
    return World().submission(request_id).key


def left(model: str = "", *holds: str, told: bool = True) -> dict[str, EarlierInstance]:
    """What is left of an instance that does not come back."""
    keys = frozenset(key(each) for each in holds)
    return {"a": EarlierInstance(model=MODEL), "gone": EarlierInstance(model=model, holds=keys if told else None)}


def after(found: dict[str, EarlierInstance]) -> Next:
    """The next scheduler, to which all but one instance came back."""
    scheduler = Next(left=found)
    scheduler.register("a")
    return scheduler


def find(scheduler: Next, request_id: str) -> None:
    reader = Subscription(scheduler.plane.loop_lag)
    scheduler.plane.intake.readers.attach(key(request_id), reader, 3)


async def test_an_instance_of_another_model_holds_nobody_up() -> None:
    scheduler = after(left("another", told=False))
    await scheduler.plane.intake.submit(World().submission("new"))
    assert scheduler.plane.recovery.open
    with pytest.raises(Recovering):
        find(scheduler, "x")  # an id alone does not say which model it is for


@pytest.mark.parametrize("model", [MODEL, ""])
async def test_an_instance_that_may_have_served_the_model_does(model: str) -> None:
    with pytest.raises(Recovering):
        await after(left(model, told=False)).plane.intake.submit(World().submission("new"))


async def test_a_request_that_names_no_model_may_be_anywhere() -> None:
    scheduler = after(left("another", told=False))
    with pytest.raises(Recovering):
        await scheduler.plane.intake.submit(replace(World().submission("new"), model=""))


async def test_after_a_hand_over_only_what_the_missing_instance_holds_waits() -> None:
    scheduler = after(left(MODEL, "there"))
    await scheduler.plane.intake.submit(World().submission("new"))
    with pytest.raises(RequestNotFound):
        find(scheduler, "x")
    with pytest.raises(Recovering):
        find(scheduler, "there")
    with pytest.raises(Recovering):
        await scheduler.plane.intake.submit(World().submission("there"))
    scheduler.register("gone")
    await scheduler.plane.intake.submit(World().submission("there"))


async def test_a_reader_without_a_name_for_its_tokens_waits_only_for_where_they_may_be_from() -> None:
    (order,) = await orders("r", detached=True)
    for found, raised in ((left(MODEL, "other"), None), (left(MODEL, "r"), Recovering), (left("other"), None)):
        scheduler = Next(left=found)
        live = scheduler.adopt("a", order)
        scheduler.tokens("a", live, 5)
        if raised is None:
            attach(scheduler, live, 3, None)
            with pytest.raises(OutputLost):  # a later attempt, which no missing instance can have
                attach(scheduler, live, 3, (order.epoch, order.attempt_number + 1))
        else:
            with pytest.raises(raised):
                attach(scheduler, live, 3, None)


async def test_what_a_missing_instance_holds_is_not_written_down_while_it_may_come_back_and_get_more() -> None:
    scheduler = after(left(MODEL, "there"))
    assert scheduler.written[-1] == {"a": EarlierInstance(model=MODEL), "gone": EarlierInstance(model=MODEL)}
    assert scheduler.plane.handed_over()["gone"].holds == frozenset({key("there")})


async def test_the_request_of_a_prefill_leg_is_placed_anew_once_its_decode_leg_cannot_come_back() -> None:
    (order,) = await orders("r")
    prefill = replace(order, phase=Phase.PREFILLING, sampling=PREFILL_SAMPLING)
    scheduler = Next(left=left("another", told=False))
    assert scheduler.adopt("a", prefill, tokens=0).state is RequestState.QUEUED
    scheduler = Next(left={**left(MODEL, "other"), "b": EarlierInstance(model=MODEL)})
    scheduler.register("a", held(prefill))
    scheduler.answer("a", prefill, tokens=0)
    assert len(scheduler.plane.requests) == 0, "b may have its decode leg"
    scheduler.register("b")
    assert len(scheduler.plane.requests) == 1
    assert scheduler.plane.recovery.open


async def test_detached_work_is_queued_again_once_no_executor_can_come_back_with_it() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("r", max_tokens=100)
        await world.advance(0.5)
    found = {"x": EarlierInstance(model=MODEL), "gone": EarlierInstance(model=MODEL, holds=frozenset({key("other")}))}
    async with DetachedWorld(store=world.store, epoch=9, left=found) as next_world:
        await next_world.advance(2 * SWEEP_S)
        assert next_world.plane.restoration is not None
        assert len(next_world.plane.restoration) == 1, "x may have it"
        next_world.add("x")
        await next_world.advance(2 * SWEEP_S)
        assert next_world.plane.recovery.open
        assert next_world.plane.requests.get(key("r")).state is RequestState.RUNNING


async def test_a_scheduler_that_hands_over_says_what_its_instances_may_hold() -> None:
    async with World(adopts=True) as world:
        for instance_id in ("a", "b"):
            world.add(instance_id, max_running=1)
        for number in range(12):
            await world.submit(str(number), max_tokens=500)
        await world.advance(0.3)
        world.plane.instances.sessions.end_all("the scheduler hands over")
        found = world.plane.handed_over()
        assert {name: each.model for name, each in found.items()} == {"a": MODEL, "b": MODEL}
        for instance_id, each in found.items():
            running = {live.key for live in world.plane.requests if _where(live) == {instance_id}}
            assert running
            assert each.holds == frozenset(running)


def _where(live: LiveRequest) -> set[str]:
    return {each.decision.instance_id for each in live.placements}


async def test_ends_that_an_instance_keeps_are_handed_over() -> None:
    async with World(adopts=True) as world:
        world.add("a")
        reader = await world.submit("ended", max_tokens=3)
        await world.advance(0.5)
        assert reader.live.state.ended
        kept: list[bool] = []
        world.plane.intake.ends.keep(reader.live, "a", lambda: kept.append(False))
        world.plane.instances.sessions.end_all("the scheduler hands over")
        assert world.plane.handed_over()["a"].holds == frozenset({reader.live.key})


async def test_what_is_not_known_stays_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    (order,) = await orders("r")
    earlier = {**left(MODEL, "there"), "asked": EarlierInstance(model=MODEL)}
    scheduler = after(earlier)
    scheduler.register("asked", held(order, "asked"))  # and does not answer
    assert scheduler.plane.handed_over() == {
        "a": EarlierInstance(model=MODEL, holds=frozenset()),
        "asked": EarlierInstance(model=MODEL),
        "gone": earlier["gone"],
    }
    scheduler.answer("asked", order)
    monkeypatch.setattr(handing_over, "HELD_LIMIT", 0)
    assert scheduler.plane.handed_over()["asked"].holds is None, "they are too many to write down"


async def test_an_executor_that_holds_nothing_is_back_once_it_says_how_its_engine_is() -> None:
    """Until then no request for its model can be read, and one that waited would be refused."""
    scheduler = Next(left={"a": EarlierInstance(model=MODEL)})
    scheduler.register("a", ready=False)
    with pytest.raises(Recovering):
        await scheduler.plane.intake.submit(World().submission("waited"))
    scheduler.ready("a")
    await scheduler.plane.intake.submit(World().submission("waited"))
    assert not scheduler.plane.recovery.open


async def test_an_executor_whose_engine_starts_is_back() -> None:
    scheduler = Next(left={"a": EarlierInstance(model=MODEL)})
    scheduler.register("a", ready=False)
    state = InstanceState.LOADING
    scheduler.plane.instances.reports.engine_status(scheduler.sessions["a"], state, None, "", None)
    assert not scheduler.plane.recovery.open
