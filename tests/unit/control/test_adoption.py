"""Requests of an earlier scheduler go on with this one, from what their executors hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from sage.controlplane.v1 import common_pb2, executor_pb2, record_pb2
from sage_common.virtual_clock import VirtualClock
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.adoption.outstanding import ASKED_AT_ONCE
from scheduler_svc.control.adoption.restart_figures import RestartFigures
from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.attempts.output_columns import OutputColumns
from scheduler_svc.control.attempts.request_runner import PREFILL_SAMPLING
from scheduler_svc.control.instances.registration import Registration
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.requests.grace import ADOPTED_S
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.control.requests.recovery import RETRY_S
from scheduler_svc.control.requests.subscription import Subscription
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.errors import OutputLost, Recovering, RequestNotFound
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.request import Priority, RequestKey, RequestState
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.storage.adoption_key import AdoptionKey
from scheduler_svc.transport.assign import assign_message
from scheduler_svc.transport.request_records import held_request
from scheduler_svc.transport.signed_receipts import SignedReceipts
from scheduler_svc.wiring.control_plane import build_control
from scheduler_svc.wiring.earlier_scheduler import EarlierScheduler
from tests.unit.control.world import EPOCH, KEY, MODEL, ModelledExecutor, NoTokenizers, World

NEXT_EPOCH = EPOCH + 2
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

    def __init__(
        self,
        *expected: str,
        left: Mapping[str, EarlierInstance] | None = None,
        key: AdoptionKey | None = KEY,
        config: SchedulerConfig | None = None,
        wall: Callable[[], float] = time.time,
        observe: Callable[[Scheduler], Observer] = lambda scheduler: NULL_OBSERVER,
    ) -> None:
        self.clock = VirtualClock()
        self.written: list[Mapping[str, EarlierInstance]] = []  # what the scheduler after this one is to wait for
        self.plane = build_control(
            config or SchedulerConfig(policy="fifo"),
            self.clock,
            NoTokenizers(),
            epoch=NEXT_EPOCH,
            observe=observe,
            earlier=EarlierScheduler(
                instances=left if left is not None else {each: EarlierInstance() for each in expected},
                proofs=key,
                receipts=SignedReceipts(key) if key is not None else None,
                wall=wall,
                keep_instances=self.written.append,
            ),
        )
        self.world: Any = type("Stub", (), {"plane": self.plane, "clock": self.clock})()
        self.links: dict[str, Link] = {}
        self.sessions: dict[str, Session] = {}

    def register(self, instance_id: str, *held: HeldAttempt, ready: bool = True) -> Link:
        link = self.links[instance_id] = Link(world=self.world, instance_id=instance_id)
        spec = InstanceSpec(instance_id=instance_id, model=MODEL, engine_start_id="start-1")
        welcome = self.plane.instances.registrar.register(Registration(spec=spec, held=held), link)
        session = self.sessions[instance_id] = self.plane.instances.sessions.by_id(welcome.session_id)
        if ready:
            self.ready(instance_id)
        self.plane.instances.sessions.outputs_opened(session.session_id)
        link.connected = True
        return link

    def ready(self, instance_id: str) -> None:
        facts = self.links[instance_id].facts()
        self.plane.instances.reports.engine_status(self.sessions[instance_id], InstanceState.READY, None, "", facts)

    def answer(self, instance_id: str, order: AssignOrder, *, tokens: int = 5, held_for_s: float = 1.0) -> None:
        self.say(instance_id, held_assign(order, instance_id, tokens=tokens, held_for_s=held_for_s))

    def say(self, instance_id: str, wire: executor_pb2.HeldAssign) -> None:
        name = (wire.attempt.epoch, wire.attempt.number)
        found = held_request(wire, instance_id, KEY, self.clock.now())
        self.plane.instances.reports.held_assign(self.sessions[instance_id], name, found)

    def adopt(self, instance_id: str, order: AssignOrder, **answer: Any) -> LiveRequest:
        self.register(instance_id, held(order, instance_id))
        self.answer(instance_id, order, **answer)
        return self.plane.requests.get(order.request.key)

    def tokens(self, instance_id: str, live: LiveRequest, count: int) -> None:
        number = live.placements[0].decision.attempt_number
        ids = list(range(100, 100 + count))
        columns = OutputColumns([number], [0], [count], [count], ids, "x" * count)
        self.plane.attempts.columns(instance_id, columns)


def held_assign(
    order: AssignOrder, instance_id: str = "a", *, tokens: int = 5, held_for_s: float = 1.0
) -> executor_pb2.HeldAssign:
    wire = executor_pb2.HeldAssign(
        attempt=common_pb2.Attempt(epoch=order.epoch, number=order.attempt_number),
        assign=assign_message(order, instance_id, KEY),
        tokens=tokens,
    )
    wire.held_for.FromMilliseconds(int(held_for_s * 1000))
    return wire


def held(order: AssignOrder, instance_id: str = "a", **changes: Any) -> HeldAttempt:
    message = assign_message(order, instance_id, KEY)
    found = HeldAttempt(
        epoch=order.epoch,
        number=order.attempt_number,
        tokens=5,
        ended=False,
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
    after.plane.intake.readers.attach(live.key, reader, 3, (EPOCH, order.attempt_number))
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
    after.plane.instances.sessions.control_broken(after.sessions["a"], "reset")
    after.plane.instances.sessions.outputs_broken(after.sessions["a"], "reset")
    after.register("b", held(order, "b"))
    after.answer("b", order)
    (adopted,) = after.plane.attempts.on_instance("b")
    assert adopted.number != order.attempt_number
    assert after.plane.attempts.names.number(EPOCH, order.attempt_number) == adopted.number
    assert link is not after.links["b"]
    dispatching.cancel()


def _another_record(wire: executor_pb2.HeldAssign) -> None:
    made = record_pb2.RequestRecord.FromString(wire.assign.record)
    made.tenant = "somebody else"
    wire.assign.record = made.SerializeToString()


@pytest.mark.parametrize(
    "change",
    [
        lambda wire: setattr(wire.assign, "adoption_proof", b"x" * 32),
        lambda wire: setattr(wire.assign, "adoption_proof", b""),
        _another_record,
        lambda wire: wire.assign.prompt_token_ids.append(7),
        lambda wire: setattr(wire.assign.sampling, "max_tokens", 100_000),
        lambda wire: setattr(wire.assign, "adapter", "other"),
        lambda wire: wire.assign.ClearField("remaining"),
        lambda wire: wire.ClearField("assign"),
    ],
    ids=["another proof", "no proof", "record", "prompt", "sampling", "adapter", "deadline", "no assign"],
)
async def test_nothing_is_adopted_that_its_proof_does_not_cover(
    change: Callable[[executor_pb2.HeldAssign], None],
) -> None:
    (order,) = await orders("r")
    after = Next("a")
    link = after.register("a", held(order))
    wire = held_assign(order)
    change(wire)
    after.say("a", wire)
    assert len(after.plane.requests) == 0
    assert any(line.startswith("cancel") for line in link.log)
    assert not after.plane.recovery.open


async def test_what_has_no_proof_is_not_asked_for() -> None:
    (order,) = await orders("r")
    after = Next("a")
    link = after.register("a", held(order, adoption_proof=b""))
    assert not any(line.startswith("fetch_assign") for line in link.log)
    after.answer("a", order)
    assert len(after.plane.requests) == 0


@pytest.mark.parametrize("changed", [{"number": 99}, {"epoch": 3}], ids=["number", "epoch"])
async def test_a_proof_is_good_for_one_attempt(changed: dict[str, Any]) -> None:
    (order,) = await orders("r")
    after = Next("a")
    after.register("a", held(order, **changed))
    wire = held_assign(order)
    for name, value in changed.items():
        setattr(wire.attempt, name, value)
    after.say("a", wire)
    assert len(after.plane.requests) == 0


async def test_a_proof_is_good_for_one_instance() -> None:
    (order,) = await orders("r")
    after = Next()
    link = after.register("b", held(order, "a"))
    after.say("b", held_assign(order, "a"))
    assert len(after.plane.requests) == 0
    assert any(line.startswith("cancel") for line in link.log)


async def test_thousands_of_held_attempts_are_asked_for_a_few_at_a_time() -> None:
    (order,) = await orders("r")
    many = [replace(order, attempt_number=number) for number in range(1, 10 * ASKED_AT_ONCE)]
    after = Next("a")
    link = after.register("a", *(held(each) for each in many))

    def asked() -> int:
        return sum(line.startswith("fetch_assign") for line in link.log)

    assert asked() == ASKED_AT_ONCE
    after.answer("a", many[0])
    assert asked() == ASKED_AT_ONCE + 1
    for each in many[1:]:
        after.answer("a", each)
    assert asked() == len(many)
    assert not after.plane.recovery.open


async def test_one_that_cannot_be_adopted_does_not_keep_the_next_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await orders("first", "second")
    after = Next("a")
    link = after.register("a", held(first), held(second))
    adopt = after.plane.scheduler.adopt

    def broken(request: Any, *rest: Any) -> Any:
        if request.key == first.request.key:
            raise ValueError("a defect")
        return adopt(request, *rest)

    monkeypatch.setattr(after.plane.scheduler, "adopt", broken)
    after.answer("a", first)
    after.answer("a", second)
    assert after.plane.requests.find(first.request.key) is None
    assert any(line.startswith("cancel") for line in link.log)
    assert after.plane.requests.get(second.request.key).state is RequestState.RUNNING


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
    assert told.value.expected_wait_s == RETRY_S[0], "most are back in a moment"
    await after.clock.advance(2.0)
    with pytest.raises(Recovering) as told:
        await after.plane.intake.submit(World().submission("new"))
    assert told.value.expected_wait_s == RETRY_S[1], "the longer it takes, the less often they ask"
    after.register("a")
    with pytest.raises(Recovering):
        after.plane.intake.readers.attach(RequestKey(tenant="t", request_id="x"), Subscription(after.plane.loop_lag), 3)
    after.register("b")
    await after.plane.intake.submit(submission)
    with pytest.raises(RequestNotFound):
        after.plane.intake.readers.attach(RequestKey(tenant="t", request_id="x"), Subscription(after.plane.loop_lag), 3)


async def test_the_scheduler_after_this_one_waits_for_those_that_are_not_back_yet() -> None:
    after = Next("a", "gone")
    after.register("a")
    assert after.written[-1].keys() == {"a", "gone"}, "this one may die before it is back"
    await after.clock.advance(LIMIT_S + 0.1)
    assert after.written[-1].keys() == {"a"}


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
    after.plane.intake.readers.attach(live.key, reader, position, attempt)
    after.plane.intake.readers.leave(reader)


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
    after.plane.intake.readers.attach(first.key, Subscription(after.plane.loop_lag), 0)
    assert after.adopt("b", later) is first
    assert any("cancel" in line for line in after.links["b"].log)


async def test_the_earlier_one_of_two_is_stopped_if_it_comes_last() -> None:
    (order,) = await orders("r")
    later = replace(order, attempt_number=order.attempt_number + 7)
    after = Next("a", "b")
    first = after.adopt("b", later)
    assert after.adopt("a", order) is first
    assert any("cancel" in line for line in after.links["a"].log)


def prefill_leg(order: AssignOrder) -> AssignOrder:
    return replace(order, phase=Phase.PREFILLING, sampling=PREFILL_SAMPLING)


async def test_a_prefill_leg_is_stopped_and_its_request_placed_anew() -> None:
    (order,) = await orders("r")
    after = Next("a")
    live = after.adopt("a", prefill_leg(order), tokens=0)
    assert live.state is RequestState.QUEUED
    assert live.request.sampling == order.request.sampling, "not that of its prefill leg"
    assert any("cancel" in line for line in after.links["a"].log)
    assert after.plane.scheduler.instance("a").account.live == 0


async def test_a_decode_leg_goes_before_the_prefill_leg_of_its_request() -> None:
    (order,) = await orders("r", detached=True)
    decode = replace(order, attempt_number=order.attempt_number + 1, phase=Phase.DECODING)
    after = Next("a", "b")
    after.register("a", held(prefill_leg(order)))
    after.answer("a", prefill_leg(order), tokens=0)
    assert len(after.plane.requests) == 0, "a decode leg may come back"
    live = after.adopt("b", decode)
    assert live.state is RequestState.RUNNING
    assert live.placements[0].decision.instance_id == "b"


async def test_tokens_of_a_decode_leg_are_not_continued_with_those_of_a_request_that_was_placed_anew() -> None:
    (order,) = await orders("r", detached=True)
    after = Next("a")
    live = after.adopt("a", prefill_leg(order), tokens=0)
    with pytest.raises(OutputLost):
        attach(after, live, 4, (EPOCH, order.attempt_number + 1))


async def test_a_second_restart_still_tells_later_attempts_from_earlier_ones() -> None:
    """The reader has tokens of an attempt that the second scheduler began, and the third adopts one of the first."""
    (order,) = await orders("r", detached=True)
    after = Next("a")
    live = after.adopt("a", order)
    after.tokens("a", live, 5)
    with pytest.raises(OutputLost):
        attach(after, live, 4, (EPOCH + 1, 1))


async def test_what_an_adopted_attempt_did_not_send_again_is_not_made_up_by_the_next_one() -> None:
    (order,) = await orders("r", detached=True)
    after = Next("a")
    live = after.adopt("a", order)
    after.tokens("a", live, 3)
    after.plane.instances.sessions.goodbye(after.sessions["a"], "leaves")
    mine = (EPOCH, order.attempt_number)
    attach(after, live, 3, mine)
    with pytest.raises(OutputLost):
        attach(after, live, 5, mine)
    after.register("b")
    dispatching = asyncio.create_task(after.plane.dispatcher.run())
    await after.clock.advance(0.2)
    number = live.placements[1].decision.attempt_number
    after.plane.attempts.columns("b", OutputColumns([number], [3], [4], [4], [1, 2, 3, 4], "four"))
    assert len(live.output) == 7
    attach(after, live, 3, mine)
    attach(after, live, 5, (NEXT_EPOCH, number))
    with pytest.raises(OutputLost):
        attach(after, live, 5, mine)
    dispatching.cancel()


async def test_a_cancel_waits_until_the_request_is_back() -> None:
    (order,) = await orders("r", detached=True)
    after = Next("a", "b")
    with pytest.raises(Recovering):
        after.plane.intake.cancel(order.request.key, "enough")
    live = after.adopt("a", order)
    assert after.plane.intake.cancel(live.key, "enough") == (True, live)


async def test_adopted_requests_count_for_their_tenants_running_limit() -> None:
    (order,) = await orders("r", detached=True)
    tenant = order.request.key.tenant
    config = SchedulerConfig.model_validate({"policy": "fifo", "tenants": {tenant: {"running_limit": 1}}})
    after = Next("a", config=config)
    live = after.adopt("a", order)
    dispatching = asyncio.create_task(after.plane.dispatcher.run())
    await after.plane.intake.submit(World().submission("new", tenant=tenant))
    await after.clock.advance(0.1)
    (new,) = (each for each in after.plane.requests if each is not live)
    assert new.state.value == "queued"
    after.plane.intake.cancel(live.key, "enough")
    after.plane.attempts.ended("a", AttemptEnd(attempt_number=1, cause=EndCause.CANCELLED, total_tokens=0))
    await after.clock.advance(0.1)
    assert new.state.value == "running"
    dispatching.cancel()


async def test_the_engines_figures_include_what_was_adopted() -> None:
    (order,) = await orders("r")
    after = Next("a")
    after.adopt("a", order)
    account = after.plane.scheduler.instance("a").account
    assert account.kv.unseen_tokens > 0
    load = LoadReport(number=1, last_assign=0, running=1, waiting=0, unfinished=1, iterations=1, kv_used_tokens=64)
    after.plane.instances.reports.heartbeat(after.sessions["a"], load)
    assert account.kv.unseen_tokens == 0


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
    after.plane.instances.sessions.goodbye(after.sessions["a"], "leaves")
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


async def test_an_executor_that_reconnects_keeps_what_was_adopted() -> None:
    (order,) = await orders("r", detached=True)
    after = Next("a")
    live = after.adopt("a", order)
    after.tokens("a", live, 3)
    (attempt,) = after.plane.attempts.on_instance("a")
    session = after.sessions["a"]
    after.plane.instances.sessions.control_broken(session, "reset")
    link = Link(world=after.world, instance_id="a")
    again = Registration(spec=session.instance.spec, held=(held(order),), resume_secret=session.resume_secret)
    welcome = after.plane.instances.registrar.register(again, link)
    assert welcome.keep == (attempt.number,)
    after.plane.instances.sessions.outputs_opened(welcome.session_id)
    assert f"resend {attempt.number} from 3" in link.log
    assert not any(line.startswith("fetch_assign") for line in link.log)
    assert after.plane.scheduler.instance("a").account.live == 1


async def test_one_that_reconnects_while_it_is_asked_is_asked_again() -> None:
    (order,) = await orders("r", detached=True)
    after = Next("a")
    after.register("a", held(order))
    session = after.sessions["a"]
    link = after.links["a"] = Link(world=after.world, instance_id="a")
    again = Registration(spec=session.instance.spec, held=(held(order),), resume_secret=session.resume_secret)
    welcome = after.plane.instances.registrar.register(again, link)
    after.sessions["a"] = after.plane.instances.sessions.by_id(welcome.session_id)
    after.ready("a")
    after.plane.instances.sessions.outputs_opened(welcome.session_id)
    after.answer("a", order)
    assert after.plane.requests.get(order.request.key).state is RequestState.RUNNING
    assert after.plane.scheduler.instance("a").account.live == 1


async def test_what_came_back_and_how_long_it_took_is_told() -> None:
    (order,) = await orders("r", detached=True)
    after = Next("a", "b")
    await after.clock.advance(1.0)
    after.adopt("a", order)
    assert after.plane.adoption.figures == RestartFigures(adopted=1, recovering=True, missing=1, recovery_s=1.0)
    after.register("b")
    await after.clock.advance(1.0)
    assert after.plane.adoption.figures == RestartFigures(adopted=1, recovering=False, missing=0, recovery_s=1.0)
    assert Next().plane.adoption.figures == RestartFigures()


def pieces(after: Next, live: LiveRequest, first: int, rows: list[bytes]) -> None:
    number = live.placements[0].decision.attempt_number
    ids = list(range(first, first + len(rows)))
    after.plane.attempts.tokens("a", number, first, ids, "x" * len(rows), rows)


async def test_nobody_gets_tokens_without_the_log_probabilities_that_they_had() -> None:
    (order,) = await orders("r", detached=True)
    order = replace(order, sampling=replace(order.sampling, logprobs=1))
    after = Next("a")
    live = after.adopt("a", order)
    with pytest.raises(Recovering):
        attach(after, live, 0, None)  # whether the first token has them is not known yet
    pieces(after, live, 0, [b"", b"", b"row", b"row", b"row"])
    for position in (0, 1):
        with pytest.raises(OutputLost):
            attach(after, live, position, (EPOCH, order.attempt_number))
    for position in (2, 5):
        attach(after, live, position, (EPOCH, order.attempt_number))
