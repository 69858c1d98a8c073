"""The bounds of a session: what is above them is refused, and nothing else suffers."""

from __future__ import annotations

import asyncio
import sys

import pytest
from google.rpc import code_pb2

from sage.controlplane.v1 import common_pb2, inference_pb2
from scheduler_svc.domain.errors import LimitReached
from scheduler_svc.transport.client_sessions import client_session, frame_writer
from scheduler_svc.transport.client_sessions.limits import BEGUN_PER_TURN
from tests.unit.control.detached_world import DetachedWorld
from tests.unit.control.world import World, expected
from tests.unit.transport.client_sessions.memory_session import MemorySession, submit


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_session, "HANDLES_LIMIT", 4)
    monkeypatch.setattr(client_session, "REFUSALS_LIMIT", 4)
    monkeypatch.setattr(client_session, "ARRIVING_LIMIT", 2)


async def test_handles_above_the_limit_are_refused(few: None) -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a", max_running=8)
        handles = [await session.submit(f"r{n}", max_tokens=50) for n in range(6)]
        await world.advance(0.1)
        failed = [session.of(handle).failed for handle in handles]
        assert failed[:4] == [None] * 4
        assert all(each is not None and each.code == code_pb2.RESOURCE_EXHAUSTED for each in failed[4:])
        await world.advance(2)
        assert all(session.of(handle).token_ids == expected(50) for handle in handles[:4])
        assert not session.task.done()


async def test_a_client_that_reads_no_refusal_and_goes_on_is_ended(few: None) -> None:
    async with World() as world, MemorySession(world, acknowledges=False) as session:
        world.add("a", max_running=8)
        session.taking.clear()
        await session.say(attach=[inference_pb2.AttachHandle(handle=n, request_id="nobody") for n in range(1, 20)])
        assert isinstance(session.task.exception(), LimitReached)


async def test_submissions_above_the_limit_of_those_that_arrive_are_refused(few: None) -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a", max_running=8)
        await session.say(submit=[submit(n, f"r{n}", max_tokens=5) for n in (1, 2, 3)])
        await world.advance(1)
        failed = session.of(3).failed
        assert failed is not None
        assert failed.code == code_pb2.RESOURCE_EXHAUSTED
        assert session.of(1).token_ids == session.of(2).token_ids == expected(5)


async def test_results_of_the_journal_above_the_limit_of_those_that_arrive_are_refused(few: None) -> None:
    async with DetachedWorld(record={"requests": 1}) as world, MemorySession(world) as session:
        world.add("a", max_running=8)
        for request_id in ("r1", "r2", "r3", "latest"):
            await world.leave(request_id)
        await world.advance(5)
        attaches = [inference_pb2.AttachHandle(handle=n, request_id=f"r{n}", tenant="t") for n in (1, 2, 3)]
        await session.say(attach=attaches)
        await world.advance(1)
        failed = session.of(3).failed
        assert failed is not None
        assert failed.code == code_pb2.RESOURCE_EXHAUSTED, "it is there: NOT_FOUND would be a lie"
        assert session.of(1).token_ids == session.of(2).token_ids == expected(20)


async def test_a_handle_that_is_left_makes_room_for_one_that_arrives(few: None) -> None:
    async with World() as world, MemorySession(world) as session:
        waiting = [submit(n, f"r{n}", max_tokens=5) for n in (1, 2)]
        for each in waiting:
            each.request.spec.no_instance = inference_pb2.NO_INSTANCE_WAIT
        await session.say(submit=waiting)
        session.put(inference_pb2.SessionRequest(leave=[1]))
        session.put(inference_pb2.SessionRequest(submit=[submit(3, "r3", max_tokens=5)]))
        await world.clock.settle()
        failed = session.of(3).failed
        assert failed is not None
        assert failed.code == code_pb2.UNAVAILABLE, "there is no instance; the handle itself had room"


async def test_what_is_submitted_and_left_while_nothing_can_be_sent_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_writer, "FORGOTTEN_LIMIT", 8)
    async with World(step_s=10.0) as world, MemorySession(world, acknowledges=False) as session:
        world.add("a", max_running=8)
        session.taking.clear()
        for number in range(1, 40):
            await session.say(attach=[inference_pb2.AttachHandle(handle=number, request_id="nobody")], leave=[number])
        assert len(session.session) == 0
        assert len(session.session._writer._waiting) <= 8


async def test_no_message_is_kept_once_it_was_taken() -> None:
    async with World() as world, MemorySession(world) as session:
        wire = submit(1, "r", max_tokens=5)
        wire.request.spec.no_instance = inference_pb2.NO_INSTANCE_WAIT
        message = inference_pb2.SessionRequest(submit=[wire])
        wire = message.submit[0]
        named = sys.getrefcount(message), sys.getrefcount(wire)
        session.put(message)
        await world.clock.settle()
        assert len(session.session) == 1, "it waits for an instance"
        assert (sys.getrefcount(message), sys.getrefcount(wire)) == named
        first, session.first = session.first, None
        assert sys.getrefcount(first) == named[0]


async def test_a_message_with_many_requests_leaves_turns_to_others() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a", max_running=8)
        message = inference_pb2.SessionRequest(submit=[submit(n, f"r{n}", max_tokens=5) for n in range(1, 161)])
        session.put(message)
        while len(session.session) < 160:
            before = len(session.session)
            await asyncio.sleep(0)
            assert len(session.session) - before <= BEGUN_PER_TURN


async def test_the_first_requests_of_a_message_are_with_their_executor_before_others_begin() -> None:
    async with World() as world, MemorySession(world) as session:
        a = world.add("a", max_running=400)
        session.put(inference_pb2.SessionRequest(submit=[submit(n, f"r{n}", max_tokens=5) for n in range(1, 161)]))
        while len(session.session) < 160:
            await asyncio.sleep(0)
            assert len(session.session) - len(a.held) <= BEGUN_PER_TURN


@pytest.mark.parametrize(
    ("field", "wire"),
    [
        ("after.choice", {"after": [inference_pb2.ChoicePosition(choice=1)]}),
        ("after.choice", {"after": [inference_pb2.ChoicePosition()] * 2}),
        ("after.choice", {"after": [inference_pb2.ChoicePosition(choice=1)] * 2}),
        ("trace_context.traceparent", {"trace_context": common_pb2.TraceContext(traceparent="0" * 129)}),
        ("trace_context.tracestate", {"trace_context": common_pb2.TraceContext(tracestate="0" * 5_000)}),
    ],
)
async def test_a_wrong_submit_is_refused_with_its_field(field: str, wire: dict[str, object]) -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        wrong = submit(1, "r", max_tokens=5)
        wrong.MergeFrom(inference_pb2.Submit(**wire))  # type: ignore[arg-type]
        await session.say(submit=[wrong])
        await world.advance(0.1)
        failed = session.of(1).failed
        assert failed is not None
        assert failed.code == code_pb2.INVALID_ARGUMENT
        assert failed.message.startswith(f"{field}: ")


async def test_the_trace_of_a_submission_reaches_its_executor() -> None:
    traceparent = f"00-{'1' * 32}-{'2' * 16}-01"
    async with World() as world, MemorySession(world) as session:
        a = world.add("a")
        wire = submit(1, "r", max_tokens=50)
        wire.trace_context.traceparent = traceparent
        await session.say(submit=[wire])
        await world.advance(0.05)
        (running,) = a.held.values()
        assert running.order.trace_headers["traceparent"] == traceparent
