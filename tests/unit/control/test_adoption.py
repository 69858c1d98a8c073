"""Requests of an earlier scheduler go on with this one, from what their executors hold."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_common.virtual_clock import VirtualClock
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.attempts.output_columns import OutputColumns
from scheduler_svc.control.instances.registration import Registration
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.requests.grace import ADOPTED_S
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.control.requests.recovery import RETRY_S
from scheduler_svc.control.requests.subscription import Subscription
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.errors import OutputLost, Recovering, RequestNotFound
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.request import Priority, RequestKey, RequestState
from scheduler_svc.storage.adoption_key import AdoptionKey
from scheduler_svc.transport.assign import assign_message
from scheduler_svc.transport.request_records import held_request
from scheduler_svc.wiring import EarlierScheduler, build_control
from tests.unit.control.world import EPOCH, MODEL, ModelledExecutor, NoTokenizers, World

NEXT_EPOCH = EPOCH + 2
KEY = AdoptionKey(b"k" * 32)
LIMIT_S = 10.0


async def orders(*request_ids: str, **options: Any) -> list[AssignOrder]:
    """What an earlier scheduler sent to instance "a" for these requests."""
    async with World() as world:
        world.add("a")
        for request_id in request_ids:
            await world.submit(request_id, max_tokens=50, **options)
        await world.advance(0.2)
        return [running.order for running in world.executors["a"].held.values()]


class Link(ModelledExecutor):
    """Writes down what it is told to do."""

    def cancel(self, attempt_number: int, reason: str) -> None:
        self.log.append(f"cancel {attempt_number}")

    def resend(self, attempt_number: int, from_index: int) -> None:
        self.log.append(f"resend {attempt_number} from {from_index}")


class Next:
    """The scheduler that starts after the earlier one died."""

    def __init__(self, *expected: str, key: AdoptionKey | None = KEY) -> None:
        self.clock = VirtualClock()
        self.plane = build_control(
            SchedulerConfig(policy="fifo"),
            self.clock,
            NoTokenizers(),
            epoch=NEXT_EPOCH,
            earlier=EarlierScheduler(instances=frozenset(expected), proofs=key),
        )
        self.world: Any = type("Stub", (), {"plane": self.plane, "clock": self.clock})()
        self.links: dict[str, Link] = {}
        self.sessions: dict[str, Session] = {}

    def register(self, instance_id: str, *held: HeldAttempt, ready: bool = True) -> Link:
        link = self.links[instance_id] = Link(world=self.world, instance_id=instance_id)
        spec = InstanceSpec(instance_id=instance_id, model=MODEL, engine_start_id="start-1")
        welcome = self.plane.sessions.register(Registration(spec=spec, held=held), link)
        session = self.sessions[instance_id] = self.plane.sessions.by_id(welcome.session_id)
        if ready:
            self.ready(instance_id)
        self.plane.sessions.outputs_opened(session.session_id)
        link.connected = True
        return link

    def ready(self, instance_id: str) -> None:
        facts = self.links[instance_id].facts()
        self.plane.sessions.engine_status(self.sessions[instance_id], InstanceState.READY, None, "", facts)

    def answer(self, instance_id: str, order: AssignOrder, *, tokens: int = 5, held_for_s: float = 1.0) -> None:
        wire = executor_pb2.HeldAssign(
            attempt=common_pb2.Attempt(epoch=order.epoch, number=order.attempt_number),
            assign=assign_message(order, instance_id, KEY),
            tokens=tokens,
        )
        wire.held_for.FromMilliseconds(int(held_for_s * 1000))
        name = (order.epoch, order.attempt_number)
        self.plane.sessions.held_assign(self.sessions[instance_id], name, held_request(wire, self.clock.now()))

    def adopt(self, instance_id: str, order: AssignOrder, **answer: Any) -> LiveRequest:
        self.register(instance_id, held(order, instance_id))
        self.answer(instance_id, order, **answer)
        return self.plane.requests.get(order.request.key)

    def tokens(self, instance_id: str, live: LiveRequest, count: int) -> None:
        number = live.placements[0].decision.attempt_number
        ids = list(range(100, 100 + count))
        columns = OutputColumns([number], [0], [count], [count], ids, "x" * count)
        self.plane.attempts.columns(instance_id, columns)


def held(order: AssignOrder, instance_id: str = "a", **changes: Any) -> HeldAttempt:
    message = assign_message(order, instance_id, KEY)
    found = HeldAttempt(
        epoch=order.epoch,
        number=order.attempt_number,
        tokens=5,
        ended=False,
        record=message.record,
        adoption_proof=message.adoption_proof,
    )
    return replace(found, **changes)


async def test_a_request_goes_on_under_the_name_that_its_attempt_has() -> None:
    (order,) = await orders("r", priority=Priority.HIGH, session="s", detached=True)
    after = Next("a")
    live = after.adopt("a", order)
    assert live.state is RequestState.RUNNING
    assert live.request.sampling == order.request.sampling
    assert list(live.request.prompt_token_ids) == list(order.request.prompt_token_ids)
    assert (live.request.priority, live.request.session, live.detached) == (Priority.HIGH, "s", True)
    number = live.placements[0].decision.attempt_number
    assert live.name_of(number, NEXT_EPOCH) == (EPOCH, order.attempt_number)
    assert after.plane.attempts.names.of(number) == (EPOCH, order.attempt_number)
    assert f"resend {number} from 0" in after.links["a"].log
    assert after.plane.scheduler.instance("a").account.live == 1, "its capacity is taken"
    assert not after.plane.recovery.open


async def test_its_age_and_its_deadline_count_from_its_acceptance() -> None:
    (order,) = await orders("r", deadline_s=60.0)
    after = Next("a")
    await after.clock.advance(100.0)
    live = after.adopt("a", order, held_for_s=7.0)
    assert live.request.arrived_at == pytest.approx(93.0, abs=0.1)
    assert live.request.deadline_at == pytest.approx(153.0, abs=0.1)
    await after.clock.advance(54.0)
    assert live.state.ended


async def test_output_comes_in_whole_and_its_end_is_the_requests() -> None:
    (order,) = await orders("r")
    after = Next("a")
    live = after.adopt("a", order)
    reader = Subscription(after.plane.loop_lag)
    after.tokens("a", live, 5)
    after.plane.intake.attach(live.key, reader, 3, (EPOCH, order.attempt_number))
    events = [await reader.next(), await reader.next()]
    assert list(events[1].token_ids) == [103, 104]  # type: ignore[union-attr]
    number = live.placements[0].decision.attempt_number
    end = AttemptEnd(attempt_number=number, cause=EndCause.FINISHED, finish_reason="length", total_tokens=5)
    after.plane.attempts.ended("a", end)
    assert isinstance(live.outcome, Finished)
    assert after.plane.scheduler.instance("a").account.live == 0
    assert after.plane.attempts.names.of(number) is None


async def test_an_attempt_of_this_epoch_may_have_the_same_number() -> None:
    (order,) = await orders("r")
    after = Next()
    link = after.register("a")
    await after.plane.intake.submit(World().submission("new"))
    dispatching = asyncio.create_task(after.plane.dispatcher.run())
    await after.clock.advance(0.1)
    assert [each.number for each in after.plane.attempts.on_instance("a")] == [order.attempt_number]
    after.plane.sessions.control_broken(after.sessions["a"], "reset")
    after.plane.sessions.outputs_broken(after.sessions["a"], "reset")
    after.register("b", held(order, "b"))
    after.answer("b", order)
    (adopted,) = after.plane.attempts.on_instance("b")
    assert adopted.number != order.attempt_number
    assert after.plane.attempts.names.number(EPOCH, order.attempt_number) == adopted.number
    assert link is not after.links["b"]
    dispatching.cancel()


@pytest.mark.parametrize(
    "changed",
    [{"adoption_proof": b""}, {"adoption_proof": b"x" * 32}, {"record": b"another"}, {"number": 99}, {"epoch": 3}],
    ids=["no proof", "another proof", "another record", "another number", "another epoch"],
)
async def test_nothing_is_adopted_without_its_proof(changed: dict[str, Any]) -> None:
    (order,) = await orders("r")
    after = Next("a")
    link = after.register("a", held(order, **changed))
    assert not any(line.startswith("fetch_assign") for line in link.log)
    assert any(line.startswith("cancel") for line in link.log)
    after.answer("a", order)
    assert after.plane.requests.find(order.request.key) is None
    assert not after.plane.recovery.open


async def test_a_proof_is_good_for_one_instance() -> None:
    (order,) = await orders("r")
    after = Next()
    link = after.register("b", held(order, "a"))
    assert any(line.startswith("cancel") for line in link.log)


async def test_a_scheduler_without_a_key_adopts_nothing() -> None:
    (order,) = await orders("r")
    after = Next(key=None)
    after.register("a", held(order))
    after.answer("a", order)
    assert len(after.plane.requests) == 0


async def test_it_waits_for_the_facts_of_the_engine() -> None:
    (order,) = await orders("r")
    after = Next("a")
    after.register("a", held(order), ready=False)
    after.answer("a", order)
    assert len(after.plane.requests) == 0
    assert after.plane.recovery.open
    after.ready("a")
    assert after.plane.requests.get(order.request.key).state is RequestState.RUNNING
    assert not after.plane.recovery.open


async def test_unknown_ids_wait_until_all_instances_are_back() -> None:
    after = Next("a", "b")
    submission = World().submission("new")
    with pytest.raises(Recovering) as told:
        await after.plane.intake.submit(submission)
    assert told.value.expected_wait_s == RETRY_S
    after.register("a")
    with pytest.raises(Recovering):
        after.plane.intake.attach(RequestKey(tenant="t", request_id="x"), Subscription(after.plane.loop_lag), 3)
    after.register("b")
    await after.plane.intake.submit(submission)
    with pytest.raises(RequestNotFound):
        after.plane.intake.attach(RequestKey(tenant="t", request_id="x"), Subscription(after.plane.loop_lag), 3)


async def test_it_does_not_wait_for_ever() -> None:
    after = Next("a", "gone")
    after.register("a")
    await after.clock.advance(LIMIT_S - 0.1)
    with pytest.raises(Recovering):
        await after.plane.intake.submit(World().submission("new"))
    await after.clock.advance(0.2)
    assert after.plane.recovery.missing
    await after.plane.intake.submit(World().submission("new"))


def attach(after: Next, live: LiveRequest, position: int, attempt: tuple[int, int] | None) -> None:
    reader = Subscription(after.plane.loop_lag)
    after.plane.intake.attach(live.key, reader, position, attempt)
    after.plane.intake.leave(reader)


async def test_a_reader_waits_until_its_position_is_sent_again() -> None:
    (order,) = await orders("r", detached=True)
    after = Next("a")
    live = after.adopt("a", order)
    with pytest.raises(Recovering):
        attach(after, live, 4, (EPOCH, order.attempt_number))
    after.tokens("a", live, 5)
    attach(after, live, 4, (EPOCH, order.attempt_number))
    with pytest.raises(OutputLost):
        attach(after, live, 6, (EPOCH, order.attempt_number))


@pytest.mark.parametrize("missing", [False, True], ids=["all are back", "one is missing"])
async def test_nobody_gets_other_tokens_than_those_that_follow(missing: bool) -> None:
    (order,) = await orders("r", detached=True)
    after = Next("a", "b")
    live = after.adopt("a", order)
    after.tokens("a", live, 5)
    same, later = (EPOCH, order.attempt_number), (EPOCH, order.attempt_number + 1)
    attach(after, live, 4, same)
    attach(after, live, 0, None)  # who has nothing takes what there is
    for unsure in (None, later):
        with pytest.raises(Recovering):
            attach(after, live, 4, unsure)
    if missing:
        await after.clock.advance(LIMIT_S + 1)
    else:
        after.register("b")
    attach(after, live, 4, same)
    with pytest.raises(OutputLost):
        attach(after, live, 4, later)
    if missing:
        with pytest.raises(OutputLost):
            attach(after, live, 4, None)
    else:
        attach(after, live, 4, None)


async def test_of_two_attempts_at_one_request_the_later_one_goes_on() -> None:
    (order,) = await orders("r")
    later = replace(order, attempt_number=order.attempt_number + 7)
    after = Next("a", "b")
    first = after.adopt("a", order)
    second = after.adopt("b", later)
    assert second is not first
    assert second.placements[0].decision.instance_id == "b"
    assert any(line.startswith("cancel") for line in after.links["a"].log), "the earlier one is stopped"


async def test_what_somebody_reads_stays_as_it_is() -> None:
    (order,) = await orders("r")
    later = replace(order, attempt_number=order.attempt_number + 7)
    after = Next("a", "b")
    first = after.adopt("a", order)
    after.plane.intake.attach(first.key, Subscription(after.plane.loop_lag), 0)
    assert after.adopt("b", later) is first
    assert any("cancel" in line for line in after.links["b"].log)


async def test_the_earlier_one_of_two_is_stopped_if_it_comes_last() -> None:
    (order,) = await orders("r")
    later = replace(order, attempt_number=order.attempt_number + 7)
    after = Next("a", "b")
    first = after.adopt("b", later)
    assert after.adopt("a", order) is first
    assert any("cancel" in line for line in after.links["a"].log)


async def test_a_prefill_leg_is_stopped_and_its_request_placed_anew() -> None:
    (order,) = await orders("r")
    after = Next("a")
    live = after.adopt("a", replace(order, phase=Phase.PREFILLING), tokens=0)
    assert live.state is RequestState.QUEUED
    assert any("cancel" in line for line in after.links["a"].log)
    assert after.plane.scheduler.instance("a").account.live == 0


async def test_what_nobody_reads_ends_after_a_while() -> None:
    order, kept = await orders("r", "kept")
    kept = replace(kept, live=replace_detached(kept))
    after = Next("a")
    after.register("a", held(order), held(kept))
    after.answer("a", order)
    after.answer("a", kept)
    await after.clock.advance(ADOPTED_S - 1)
    assert after.plane.requests.get(order.request.key).state is RequestState.RUNNING
    await after.clock.advance(2)
    assert after.plane.requests.get(order.request.key).state is RequestState.CANCELLED
    assert after.plane.requests.get(kept.request.key).state is RequestState.RUNNING, "it is detached"


def replace_detached(order: AssignOrder) -> LiveRequest:
    assert order.live is not None
    order.live.detached = True
    return order.live


async def test_an_adopted_request_fails_over_like_any_other() -> None:
    (order,) = await orders("r")
    after = Next("a")
    live = after.adopt("a", order)
    after.tokens("a", live, 5)
    after.plane.sessions.goodbye(after.sessions["a"], "leaves")
    assert live.state.value == "queued"
    assert len(live.output) == 5
    after.register("b")
    dispatching = asyncio.create_task(after.plane.dispatcher.run())
    await after.clock.advance(0.2)
    assert live.state.value == "running"
    (running,) = after.links["b"].held.values()
    assert running.order.continuation is not None
    assert list(running.order.continuation.emitted_token_ids) == list(range(100, 105))
    dispatching.cancel()
