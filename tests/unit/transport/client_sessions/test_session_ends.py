"""How sessions end, and what becomes of their requests: Bye, breaks, silence, readers that do not read, rules."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sage.controlplane.v1 import inference_pb2
from scheduler_svc.access.identity import ANYONE, Identity, Unauthenticated
from scheduler_svc.control.requests.grace import GRACE_S
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.errors import InvalidRequest, LimitReached, RequestCancelled, ShuttingDown
from scheduler_svc.domain.request import RequestKey, RequestState
from scheduler_svc.transport.client_sessions.limits import (
    ACKNOWLEDGE_LIMIT_S,
    IDENTITY_AGE_S,
    PAUSE_LIMIT_S,
    SILENCE_S,
)
from tests.unit.control.world import World, expected
from tests.unit.transport.client_sessions.memory_session import TENANT, MemorySession, generate_reader

LONG = 3_000


def request(world: World, request_id: str) -> LiveRequest:
    return world.plane.requests.get(RequestKey(tenant=TENANT, request_id=request_id))


async def test_bye_cancels_at_once_what_is_not_detached() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        await session.submit("mine", max_tokens=LONG)
        await session.submit("kept", max_tokens=50, detached=True)
        await world.advance(0.1)
        await session.say(bye=True)
        assert session.task.done()
        assert request(world, "mine").state is RequestState.CANCELLED
        await world.advance(2)
        assert request(world, "kept").state is RequestState.FINISHED
        world.assert_all_room_is_free()


async def test_a_broken_session_is_cancelled_after_the_grace_and_not_before() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        await session.submit("mine", max_tokens=LONG)
        await session.submit("kept", max_tokens=LONG, detached=True)
        await world.advance(0.1)
        await session.break_off()
        await world.advance(GRACE_S - 0.1)
        assert request(world, "mine").state is RequestState.RUNNING
        await world.advance(0.2)
        assert request(world, "mine").state is RequestState.CANCELLED
        assert isinstance(request(world, "mine").outcome, RequestCancelled)
        assert request(world, "kept").state is RequestState.RUNNING


async def test_a_stream_that_is_closed_without_bye_is_broken() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        await session.submit("mine", max_tokens=LONG)
        await world.advance(0.1)
        await session.half_close()
        assert session.task.done()
        assert request(world, "mine").state is RequestState.RUNNING
        assert len(world.plane.intake.grace) == 1


async def test_any_attachment_within_the_grace_ends_the_wait() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a", max_running=8)
        for name in ("by session", "by generate", "again"):
            await session.submit(name, max_tokens=400)
        await world.advance(0.1)
        await session.break_off()
        await world.advance(1)
        async with MemorySession(world) as second:
            taken_up = await second.attach("by session", 5)
            reader = generate_reader(world, "by generate")
            again = await second.submit("again", max_tokens=400)
            await world.advance(GRACE_S + 5)
            assert second.of(taken_up).token_ids == expected(400)[5:]
            assert reader.token_ids == expected(400)
            assert second.of(again).token_ids == expected(400)
            assert len(world.plane.intake.grace) == 0


async def test_a_second_break_begins_the_grace_anew() -> None:
    async with World() as world, MemorySession(world) as first:
        world.add("a")
        await first.submit("mine", max_tokens=LONG)
        await world.advance(0.1)
        await first.break_off()
        await world.advance(GRACE_S - 0.5)
        async with MemorySession(world) as second:
            await second.attach("mine")
            await second.break_off()
        await world.advance(GRACE_S - 0.5)
        assert request(world, "mine").state is RequestState.RUNNING
        await world.advance(1)
        assert request(world, "mine").state is RequestState.CANCELLED


async def test_a_request_that_somebody_else_reads_has_no_grace() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        await session.submit("shared", max_tokens=500)
        await world.advance(0.1)
        reader = generate_reader(world, "shared")
        await session.break_off()
        assert len(world.plane.intake.grace) == 0
        await world.advance(10)
        assert reader.token_ids == expected(500)


async def test_an_end_within_the_grace_is_kept_for_who_comes() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        await session.submit("mine", max_tokens=50)
        await world.advance(0.1)
        await session.break_off()
        await world.advance(10)
        assert request(world, "mine").state is RequestState.FINISHED
        async with MemorySession(world) as second:
            handle = await second.attach("mine", 9)
            await world.advance(0.1)
            assert second.of(handle).token_ids == expected(50)[9:]


async def test_a_silent_client_is_gone() -> None:
    async with World(step_s=5.0) as world, MemorySession(world, acknowledges=False) as session:
        world.add("a")
        await session.submit("mine", max_tokens=LONG)
        await world.advance(SILENCE_S - 0.1)
        assert not session.task.done()
        await world.advance(0.2)
        assert isinstance(session.task.exception(), LimitReached)
        assert len(world.plane.intake.grace) == 1


async def test_pings_keep_a_quiet_stream() -> None:
    async with World() as world, MemorySession(world) as session:
        for number in range(1, 20):
            await session.say(ping=number)
            await world.advance(SILENCE_S / 3)
        assert not session.task.done()
        assert session.pongs == list(range(1, 20))


async def test_a_client_that_acknowledges_nothing_does_not_read() -> None:
    async with World() as world, MemorySession(world, acknowledges=False) as session:
        world.add("a")
        await session.submit("mine", max_tokens=LONG, detached=True)
        for number in range(1, 10):
            await world.advance(ACKNOWLEDGE_LIMIT_S / 10)
            await session.say(ping=number)
        assert not session.task.done()
        await world.advance(ACKNOWLEDGE_LIMIT_S / 10 + 0.1)
        error = session.task.exception()
        assert isinstance(error, LimitReached)
        assert "acknowledged no frame for 30 s" in str(error)


async def test_a_stream_that_takes_no_message_is_let_go_too() -> None:
    async with World() as world, MemorySession(world, acknowledges=False) as session:
        world.add("a")
        await session.submit("mine", max_tokens=LONG)
        await world.advance(0.1)
        session.taking.clear()
        for number in range(1, 4):
            await world.advance(ACKNOWLEDGE_LIMIT_S / 3 + 0.1)
            await session.say(ping=number)
        assert isinstance(session.task.exception(), LimitReached)
        await world.advance(GRACE_S + 0.1)
        assert request(world, "mine").state.ended
        world.assert_all_room_is_free()


async def test_a_paused_handle_is_over_some_time_after_its_request_ended() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        handle = await session.submit("mine", max_tokens=50)
        await world.advance(0.1)
        await session.say(pause=[handle])
        await world.advance(1)
        assert request(world, "mine").state is RequestState.FINISHED
        await beats(session, PAUSE_LIMIT_S - 2)
        assert not session.of(handle).over
        await beats(session, 3)
        failed = session.of(handle).failed
        assert failed is not None
        assert "paused for 30 s" in failed.message
        again = await session.attach("mine", len(session.of(handle).token_ids))
        await world.advance(0.1)
        assert session.of(handle).token_ids + session.of(again).token_ids == expected(50)


async def test_resume_in_time_gives_the_rest_and_the_end() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        handle = await session.submit("mine", max_tokens=50)
        await world.advance(0.1)
        await session.say(pause=[handle])
        await beats(session, PAUSE_LIMIT_S - 2)
        await session.say(resume=[handle])
        await beats(session, PAUSE_LIMIT_S)
        assert session.of(handle).token_ids == expected(50)
        assert session.of(handle).finished is not None


async def test_a_handle_may_be_paused_before_it_is_accepted() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        handle = await session.submit("mine", max_tokens=20)
        await session.say(pause=[handle])
        await world.advance(1)
        assert session.of(handle).accepted is not None
        assert session.of(handle).token_ids == []
        await session.say(resume=[handle])
        await world.advance(0.1)
        assert session.of(handle).token_ids == expected(20)


async def test_leave_lets_one_request_go() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        left = await session.submit("left", max_tokens=LONG)
        stays = await session.submit("stays", max_tokens=60)
        await world.advance(0.1)
        await session.say(leave=[left])
        assert request(world, "left").state is RequestState.CANCELLED
        had = len(session.of(left).token_ids)
        await world.advance(2)
        assert len(session.of(left).token_ids) == had
        assert session.of(stays).token_ids == expected(60)


async def test_close_ends_the_stream_once_all_is_written() -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        handle = await session.submit("mine", max_tokens=30)
        session.taking.clear()
        await world.advance(1)
        session.session.close(ShuttingDown())
        await world.clock.settle()
        assert not session.task.done()
        session.taking.set()
        await world.advance(0.1)
        assert isinstance(session.task.exception(), ShuttingDown)
        assert session.of(handle).token_ids == expected(30)
        assert session.of(handle).finished is not None


SUBMIT = inference_pb2.Submit(handle=3)
ATTACH = inference_pb2.AttachHandle(handle=3)


@pytest.mark.parametrize(
    ("field", "messages"),
    [
        ("open", [{"open": inference_pb2.Open()}]),
        ("submit[0].handle", [{"submit": [inference_pb2.Submit()]}]),
        ("submit[0].handle", [{"submit": [SUBMIT]}, {"submit": [SUBMIT]}]),
        ("attach[0].handle", [{"submit": [SUBMIT], "attach": [ATTACH]}]),
        ("attach[0].handle", [{"attach": [ATTACH]}, {"leave": [3]}, {"attach": [ATTACH]}]),
        ("acknowledged", [{"acknowledged": 1_000}]),
        ("leave", [{"leave": [1] * 4_097}]),
    ],
)
async def test_a_message_that_breaks_a_rule_ends_the_stream(field: str, messages: Iterable[dict[str, object]]) -> None:
    async with World() as world, MemorySession(world) as session:
        world.add("a")
        await session.submit("mine", max_tokens=LONG)
        for fields in messages:
            await session.say(**fields)
        error = session.task.exception()
        assert isinstance(error, InvalidRequest)
        assert [violation.field for violation in error.violations] == [field]
        assert request(world, "mine").state is RequestState.RUNNING, "such a stream counts as broken"


async def test_a_client_whose_key_is_taken_back_is_refused_at_its_next_message() -> None:
    known = [ANYONE]

    def judge() -> Identity:
        if not known:
            raise Unauthenticated("the key is not known")
        return known[0]

    async with World() as world, MemorySession(world, judge=judge) as session:
        world.add("a")
        await session.submit("mine", max_tokens=LONG)
        await session.say(ping=1)
        known.clear()
        await session.say(ping=2)
        assert not session.task.done()
        await world.advance(IDENTITY_AGE_S)
        await session.say(ping=3)
        assert isinstance(session.task.exception(), Unauthenticated)


async def test_handles_that_are_not_known_are_no_fault() -> None:
    async with World() as world, MemorySession(world) as session:
        await session.say(pause=[7], resume=[8], leave=[9], ping=1)
        assert session.pongs == [1]


async def beats(session: MemorySession, seconds: float) -> None:
    """Let time pass for a client that pings."""
    for number in range(1, int(seconds) + 1):
        await session.world.advance(1)
        await session.say(ping=number)


async def test_an_end_counts_as_read_once_its_frame_is_acknowledged() -> None:
    async with World(adopts=True) as world, MemorySession(world, acknowledges=False) as session:
        executor = world.add("a")
        handle = await session.submit("r", max_tokens=5)
        await world.advance(1.0)
        assert session.of(handle).finished is not None
        assert executor.held, "the client may not have read it"
        await session.say(acknowledged=session.frames.frames)
        assert not executor.held


async def test_bye_says_that_no_end_is_needed_any_more_and_a_break_does_not() -> None:
    for bye in (True, False):
        async with World(adopts=True) as world, MemorySession(world, acknowledges=False) as session:
            executor = world.add("a")
            await session.submit("r", max_tokens=5)
            await world.advance(1.0)
            await (session.say(bye=True) if bye else session.break_off())
            assert bool(executor.held) is not bye
