"""Sessions of clients over real gRPC: every token exact, breaks and returns, slow readers, wrong messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.runtime.engine_port import Sampling
from sage.controlplane.v1 import inference_pb2
from sage_client import RequestState
from sage_wire import durations
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.integration.system.raw_session import RawSession
from tests.integration.system.test_ending_early import LONG, assert_let_go
from tests.support.eventually import eventually
from tests.support.simulated_answer import answer

STEP_S = 0.003


@pytest.fixture
async def session(fleet: LocalFleet, one: LocalExecutor) -> AsyncIterator[RawSession]:
    """An open session of a fleet with one executor."""
    async with RawSession(fleet.channel()) as opened:
        yield opened


async def check(session: RawSession, handle: int, text: str, max_tokens: int) -> None:
    """Compare what a handle got with what the engine answers when it is asked directly."""
    expected = await answer(text, Sampling(temperature=0, max_tokens=max_tokens))
    events = session.of(handle)
    assert events.failed is None
    assert events.token_ids == list(expected.token_ids)
    assert events.text == expected.text
    assert events.finished is not None
    assert events.finished.usage.completion_tokens == len(expected.token_ids)


async def test_opened_says_what_holds_for_the_stream(session: RawSession, fleet: LocalFleet) -> None:
    opened = session.opened
    assert (opened.protocol_version, opened.window) == (1, 32)
    assert opened.epoch == fleet.scheduler.control.epoch
    assert (durations.from_wire(opened.grace), durations.from_wire(opened.silence)) == (2.0, 15.0)


async def test_64_requests_at_once_are_exact(session: RawSession) -> None:
    texts = [f"Story {n}" for n in range(64)]
    handles = [await session.submit(text=text, max_tokens=20 + n) for n, text in enumerate(texts)]
    await session.over(*handles)
    for n, (handle, text) in enumerate(zip(handles, texts, strict=True)):
        await check(session, handle, text, 20 + n)
    assert max(session.frames.tokens_per_frame) > 16, "tokens of many requests travel together"


async def test_an_executor_that_dies_between_costs_no_token(fleet: LocalFleet) -> None:
    first = await fleet.add("a", step_base_s=STEP_S)
    await fleet.add("b", step_base_s=STEP_S)
    async with RawSession(fleet.channel()) as session:
        texts = [f"Story {n}" for n in range(24)]
        handles = [await session.submit(text=text, max_tokens=80) for text in texts]
        await session.until(lambda: all(len(session.of(handle).token_ids) > 10 for handle in handles))
        first.engine.inject(Fault(kind=FaultKind.DIE))
        await session.over(*handles)
        for handle, text in zip(handles, texts, strict=True):
            await check(session, handle, text, 80)
        moved = [session.of(handle) for handle in handles if len(session.of(handle).placements) > 1]
        assert moved
        for events in moved:
            seam = events.placements[-1].resumed_from_token
            assert events.attempts.count(events.placements[-1].decision.attempt.number) == 80 - seam


async def test_a_slow_reader_beside_a_fast_one(fleet: LocalFleet, one: LocalExecutor) -> None:
    async with RawSession(fleet.channel()) as slow, RawSession(fleet.channel()) as fast:
        slow.reads.clear()
        late = await slow.submit(text="Slow", max_tokens=1_000)
        prompt = await fast.submit(text="Fast", max_tokens=400)
        await fast.over(prompt)
        await check(fast, prompt, "Fast", 400)
        slow.reads.set()
        await slow.over(late)
        await check(slow, late, "Slow", 1_000)


async def test_who_acknowledges_nothing_gets_a_window_full_and_then_the_rest_in_one_frame(
    fleet: LocalFleet,
) -> None:
    await fleet.add("a", step_base_s=0.012)
    async with RawSession(fleet.channel(), acknowledges=False) as session:
        handle = await session.submit("mine", text="Long", max_tokens=100)
        await session.until(lambda: session.frames.frames == 32)

        async def ended() -> bool:
            return (await fleet.client.explain("mine")).state is RequestState.FINISHED

        await eventually(ended, within_s=10, what="the request to end")
        assert session.frames.frames == 32
        await session.say(acknowledged=32)
        await session.over(handle)
        await check(session, handle, "Long", 100)
        assert session.frames.frames == 33


async def test_a_paused_handle_stops_alone_and_goes_on_where_it_stopped(session: RawSession) -> None:
    paused = await session.submit(text="Paused", max_tokens=2_000)
    await session.until(lambda: len(session.of(paused).token_ids) > 5)
    await session.say(pause=[paused])
    other = await session.submit(text="Other", max_tokens=200)
    await session.over(other)
    had = len(session.of(paused).token_ids)
    again = await session.submit(text="Again", max_tokens=200)
    await session.over(again)
    assert len(session.of(paused).token_ids) == had
    await session.say(resume=[paused])
    await session.over(paused)
    await check(session, paused, "Paused", 2_000)


async def test_a_break_and_a_return_within_the_grace_lose_nothing(fleet: LocalFleet) -> None:
    await fleet.add("a", step_base_s=STEP_S)
    async with RawSession(fleet.channel()) as first:
        handles = {f"r{n}": await first.submit(f"r{n}", text=f"Story {n}", max_tokens=150) for n in range(8)}
        await first.until(lambda: all(len(first.of(handle).token_ids) > 5 for handle in handles.values()))
    had = {request_id: first.of(handle) for request_id, handle in handles.items()}
    async with RawSession(fleet.channel()) as second:
        again = {name: await second.attach(name, len(events.token_ids)) for name, events in had.items()}
        await second.over(*again.values())
        for n, (name, handle) in enumerate(again.items()):
            expected = await answer(f"Story {n}", Sampling(temperature=0, max_tokens=150))
            events = second.of(handle)
            assert events.accepted is not None
            assert events.accepted.attached
            assert events.first_text_at == len(had[name].text)
            assert [*had[name].token_ids, *events.token_ids] == list(expected.token_ids)
            assert had[name].text + events.text == expected.text


async def test_generate_takes_up_a_request_of_a_broken_session(fleet: LocalFleet) -> None:
    await fleet.add("a", step_base_s=STEP_S)
    stub_request = inference_pb2.GenerateRequest()
    async with RawSession(fleet.channel()) as session:
        handle = await session.submit("mine", text="Story", max_tokens=150)
        await session.until(lambda: len(session.of(handle).token_ids) > 5)
        stub_request.request_id, stub_request.spec.text = "mine", "Story"
        stub_request.spec.sampling.temperature, stub_request.spec.sampling.max_tokens = 0.0, 150
    events = [event async for event in session._stub.Generate(stub_request)]
    assert events[0].accepted.attached
    assert events[-1].finished.usage.completion_tokens == 150


async def test_a_break_without_a_return_frees_the_kv_after_the_grace(fleet: LocalFleet, one: LocalExecutor) -> None:
    async with RawSession(fleet.channel()) as session:
        handle = await session.submit("mine", max_tokens=LONG)
        await session.until(lambda: len(session.of(handle).token_ids) > 5)
    grace = fleet.scheduler.control.intake.grace
    await eventually(lambda: len(grace) == 1, within_s=2, what="the grace to begin")
    assert one.engine.load().unfinished == 1
    await assert_let_go(fleet, one)
    assert (await fleet.client.explain("mine")).state is RequestState.CANCELLED


async def test_bye_frees_the_kv_at_once(fleet: LocalFleet, one: LocalExecutor, session: RawSession) -> None:
    handles = [await session.submit(max_tokens=LONG) for _ in range(3)]
    kept = await session.submit("kept", max_tokens=200, detached=True)
    await session.until(lambda: all(len(session.of(handle).token_ids) > 5 for handle in (*handles, kept)))
    await session.say(bye=True)
    assert await session.status() is grpc.StatusCode.OK
    assert len(fleet.scheduler.control.intake.grace) == 0
    await assert_let_go(fleet, one)
    assert (await fleet.client.explain("kept")).state is RequestState.FINISHED


async def test_leave_cancels_one_request_and_no_other(session: RawSession, fleet: LocalFleet) -> None:
    left = await session.submit("left", max_tokens=LONG)
    stays = await session.submit(text="Stays", max_tokens=300)
    await session.until(lambda: len(session.of(left).token_ids) > 5)
    await session.say(leave=[left])

    async def cancelled() -> bool:
        return (await fleet.client.explain("left")).state is RequestState.CANCELLED

    await eventually(cancelled, within_s=5, what="the request to be cancelled")
    await session.over(stays)
    await check(session, stays, "Stays", 300)


async def test_a_refused_request_ends_its_handle_and_not_the_stream(session: RawSession) -> None:
    wrong = await session.submit(temperature=-1.0)
    missing = await session.attach("nobody")
    right = await session.submit(text="Right", max_tokens=5)
    await session.over(wrong, missing, right)
    failed = session.of(wrong).failed
    assert failed is not None
    assert failed.code == code_pb2.INVALID_ARGUMENT
    assert "spec.sampling.temperature" in failed.message
    assert len(failed.details) == 2, "ErrorInfo and BadRequest, as of Generate"
    assert (session.of(missing).failed or failed).code == code_pb2.NOT_FOUND
    await check(session, right, "Right", 5)


async def test_log_probabilities_come_in_pieces(session: RawSession) -> None:
    handle = await session.submit(text="Once", max_tokens=30, logprobs=2)
    await session.over(handle)
    await check(session, handle, "Once", 30)
    assert session.of(handle).logprobs == 30


async def test_a_ping_is_answered(session: RawSession) -> None:
    await session.say(ping=7)
    await session.until(lambda: session.pongs == [7])


async def test_a_scheduler_that_shuts_down_ends_the_session_after_its_requests(
    session: RawSession, fleet: LocalFleet
) -> None:
    handle = await session.submit(text="Last", max_tokens=200)
    await session.until(lambda: len(session.of(handle).token_ids) > 5)
    await fleet.stop_scheduler()
    assert await session.status() is grpc.StatusCode.UNAVAILABLE
    await check(session, handle, "Last", 200)


SUBMIT = inference_pb2.Submit(handle=1)
WRONG: dict[str, list[dict[str, Any]]] = {
    "open": [{"open": inference_pb2.Open()}],
    "submit[0].handle": [{"submit": [inference_pb2.Submit()]}],
    "submit[1].handle": [{"submit": [SUBMIT, SUBMIT]}],
    "attach[0].handle": [{"submit": [SUBMIT], "attach": [inference_pb2.AttachHandle(handle=1)]}],
    "acknowledged": [{"acknowledged": 99}],
    "pause": [{"pause": [9] * 5_000}],
}


@pytest.mark.parametrize("field", WRONG)
async def test_a_message_that_breaks_a_rule_ends_the_stream_and_names_the_field(
    field: str, fleet: LocalFleet, one: LocalExecutor
) -> None:
    # gRPC's client loses the status of a stream that ends while it writes, so nothing is acknowledged meanwhile.
    async with RawSession(fleet.channel(), acknowledges=False) as session:
        for fields in WRONG[field]:
            await session.say(**fields)
        assert await session.status() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await session.call.details()).startswith(f"{field}: ")


async def test_a_message_that_is_too_large_ends_the_stream(session: RawSession) -> None:
    await session.submit(text="x" * (1024 * 1024))
    assert await session.status() is grpc.StatusCode.INVALID_ARGUMENT
    assert "1048576" in await session.call.details()


async def test_a_stream_without_open_is_refused(fleet: LocalFleet) -> None:
    session = RawSession(fleet.channel())
    await session.say(ping=1)
    assert await session.status() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await session.call.details()).startswith("open: ")


async def test_unknown_handles_are_no_fault(session: RawSession) -> None:
    await session.say(pause=[5], resume=[6], leave=[7], ping=1)
    await session.until(lambda: session.pongs == [1])


async def test_a_session_that_breaks_while_requests_arrive_leaves_nothing(
    fleet: LocalFleet, one: LocalExecutor
) -> None:
    async with RawSession(fleet.channel()) as session:
        for _ in range(50):
            await session.submit(max_tokens=LONG)
    await asyncio.sleep(0)
    held = fleet.scheduler.control.requests

    async def stays_empty() -> bool:
        if len(held) == 0:
            await asyncio.sleep(0.2)  # a request that was read may not be held yet
        return len(held) == 0

    await eventually(stays_empty, within_s=10, what="the scheduler to end what the session brought")
    await assert_let_go(fleet, one)
    assert len(held) == 0
