"""What the SDK does with a session: one stream for all requests, frames acknowledged, slow readers paused."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider

import sage_client as sage
from sage.controlplane.v1 import inference_pb2
from sage_client import AsyncClient, Reconnect
from sage_client._session_outbox import UNACCEPTED_LIMIT, SessionOutbox
from sage_client._session_stream import SessionTimes
from sage_wire.errors import ErrorReason
from tests.integration.clients.fake_scheduler import (
    FakeScheduler,
    accepted,
    events,
    fail,
    finished,
    scheduled,
    tokens,
    whole_text,
)
from tests.integration.clients.fake_session import Aborted, refusal
from tests.support.eventually import eventually

Events = AsyncIterator[inference_pb2.GenerateResponse]
QUICK = Reconnect(attempts=3, first_delay_s=0.01, max_delay_s=0.02)


@pytest.fixture(autouse=True)
def _sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGE_SESSIONS", raising=False)


async def wait_forever(request: inference_pb2.GenerateRequest, context: Any) -> Events:
    yield accepted(request)
    await asyncio.Event().wait()


class Recorder:
    """A sink that writes down what it gets."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.token_ids: list[int] = []
        self.text = ""
        self.error: sage.SageError | None = None
        self.ended = asyncio.Event()

    def accepted(self, event: sage.Accepted, /) -> None:
        self.told.append("accepted")

    def scheduled(self, event: sage.Scheduled, /) -> None:
        self.told.append("scheduled")

    def tokens(
        self,
        choice: int,
        first_index: int,
        token_ids: list[int],
        text_offset: int,
        text: str,
        logprobs: Sequence[tuple[sage.TokenLogprob, ...]],
        /,
    ) -> None:
        assert (choice, first_index, text_offset) == (0, len(self.token_ids), len(self.text))
        self.told.append("tokens")
        self.token_ids += token_ids
        self.text += text

    def prompt_read(self, event: sage.PromptRead, /) -> None: ...

    def choice_finished(self, event: sage.ChoiceFinished, /) -> None: ...

    def finished(self, event: sage.Finished, /) -> None:
        self.told.append("finished")
        self.ended.set()

    def failed(self, error: sage.SageError, /) -> None:
        self.told.append("failed")
        self.error = error
        self.ended.set()

    async def end(self) -> None:
        await asyncio.wait_for(self.ended.wait(), 10)


# --- one stream for all ---------------------------------------------------------------------------------------------


async def test_all_requests_travel_over_one_session_that_the_first_one_opens(scheduler: FakeScheduler) -> None:
    async with AsyncClient(scheduler.address) as client:
        await client.cancel("nobody")
        assert scheduler.sessions == []
        results = await asyncio.gather(*(client.generate("hi", max_tokens=n).result() for n in range(1, 60)))
        again = await client.generate("hi", max_tokens=3).result()

    assert [len(result.token_ids) for result in results] == list(range(1, 60))
    assert again.text == whole_text(3)
    (session,) = scheduler.sessions
    assert len(session.messages[0].submit) == 59, "what is started together goes into one message"
    assert session.messages[-1].bye


async def test_a_request_carries_its_own_trace_and_the_session_none(scheduler: FakeScheduler) -> None:
    tracer = TracerProvider().get_tracer("test")
    async with AsyncClient(scheduler.address) as client:
        with tracer.start_as_current_span("caller") as span:
            await client.generate("hi").result()

    assert f"{span.get_span_context().trace_id:032x}" in scheduler.metadata[0]["traceparent"]
    assert "traceparent" not in scheduler.session_metadata[0]


async def test_a_scheduler_without_sessions_gets_generate_calls_and_is_not_asked_again(
    scheduler: FakeScheduler,
) -> None:
    asked = 0
    original = scheduler.Session

    async def session(requests: Any, context: Any) -> Any:
        nonlocal asked
        asked += 1
        async for each in original(requests, context):
            yield each

    scheduler.Session = session  # type: ignore[method-assign]
    scheduler.refuse_sessions = grpc.StatusCode.UNIMPLEMENTED
    await scheduler.stop()
    await scheduler.start()
    async with AsyncClient(scheduler.address) as client:
        for _ in range(3):
            assert (await client.generate("hi").result()).text == whole_text(4)

    assert (asked, len(scheduler.requests)) == (1, 3)


async def test_without_room_for_a_session_requests_go_through_generate_for_now(scheduler: FakeScheduler) -> None:
    scheduler.refuse_sessions = grpc.StatusCode.RESOURCE_EXHAUSTED
    async with AsyncClient(scheduler.address) as client:
        await client.generate("hi").result()
        assert scheduler.sessions == []
        scheduler.refuse_sessions = None
        await client.generate("hi").result()

    assert len(scheduler.sessions) == 1


async def test_a_large_request_goes_through_generate(scheduler: FakeScheduler) -> None:
    async with AsyncClient(scheduler.address) as client:
        await client.generate("x" * 300_000).result()

    assert scheduler.sessions == []
    assert len(scheduler.requests) == 1


async def test_sessions_can_be_switched_off(scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncClient(scheduler.address, use_sessions=False) as client:
        await client.generate("hi").result()
    monkeypatch.setenv("SAGE_SESSIONS", "0")
    async with AsyncClient(scheduler.address) as client:
        await client.generate("hi").result()

    assert scheduler.sessions == []


async def test_more_requests_than_may_wait_for_their_acceptance_are_held_back(scheduler: FakeScheduler) -> None:
    go_on = asyncio.Event()

    async def tokenize_slowly(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        await go_on.wait()
        for event in events(request, 1):
            yield event

    scheduler.generate = tokenize_slowly
    async with AsyncClient(scheduler.address) as client:
        client._dispatcher._times = SessionTimes(held_s=3_600)
        streams = [client.generate("hi") for _ in range(UNACCEPTED_LIMIT + 50)]
        await eventually(lambda: len(scheduler.requests) >= UNACCEPTED_LIMIT)
        await client.cancel("nobody")
        assert len(scheduler.requests) == UNACCEPTED_LIMIT
        go_on.set()
        for stream in streams:
            assert (await stream.result()).token_ids == (100,)


async def test_requests_that_wait_for_a_model_hold_no_other_back_for_long(
    scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("_session_outbox", "_session_stream"):
        monkeypatch.setattr(f"sage_client.{module}.UNACCEPTED_LIMIT", 3)
    loaded = asyncio.Event()

    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        if request.spec.model == "large":
            await loaded.wait()
        for event in events(request, 2):
            yield event

    scheduler.generate = generate
    async with AsyncClient(scheduler.address) as client:
        client._dispatcher._times = SessionTimes(held_s=0.05)
        large = [client.generate("hi", model="large") for _ in range(3)]
        small = client.generate("hi", model="small", request_id="held")
        assert (await asyncio.wait_for(small.result(), 10)).token_ids == (100, 101)
        next_one = client.generate("hi", model="small", request_id="next")
        assert (await asyncio.wait_for(next_one.result(), 10)).token_ids == (100, 101)
        loaded.set()
        for stream in large:
            assert (await asyncio.wait_for(stream.result(), 10)).token_ids == (100, 101)
        assert (await client.generate("hi", request_id="last").result()).token_ids == (100, 101)

    submitted = [each.request.request_id for message in scheduler.sessions[0].messages for each in message.submit]
    assert {"held", "next"}.isdisjoint(submitted)
    assert "last" in submitted


async def test_an_end_of_the_session_with_a_reason_is_that_of_its_requests(scheduler: FakeScheduler) -> None:
    scheduler.generate = wait_forever
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        streams = [client.generate("hi", request_id=name) for name in ("a", "b")]
        for stream in streams:
            await anext(stream)
        why = refusal(ErrorReason.SHUTTING_DOWN, "the scheduler shuts down")
        scheduler.sessions[0].break_off(Aborted(grpc.StatusCode.UNAVAILABLE, "the scheduler shuts down", why))
        for name, stream in zip(("a", "b"), streams, strict=True):
            with pytest.raises(sage.ShuttingDownError) as raised:
                await stream.result()
            assert raised.value.request_id == name

    assert len(scheduler.sessions) == 1


async def test_closing_the_client_ends_its_streams(scheduler: FakeScheduler) -> None:
    scheduler.generate = wait_forever
    async with AsyncClient(scheduler.address) as client:
        stream = client.generate("hi")
        await anext(stream)

    with pytest.raises(sage.RequestCancelledError, match="the client was closed"):
        await stream.result()
    await asyncio.wait_for(scheduler.left.wait(), 5)


async def test_a_client_that_nobody_closed_says_bye_once_it_is_dropped(scheduler: FakeScheduler) -> None:
    client = AsyncClient(scheduler.address)
    await client.generate("hi").result()
    del client
    gc.collect()

    await eventually(lambda: scheduler.sessions[0].messages[-1].bye)


# --- breaks ---------------------------------------------------------------------------------------------------------


async def test_each_request_of_a_broken_session_goes_on_at_its_own_position(scheduler: FakeScheduler) -> None:
    gate = {name: asyncio.Event() for name in ("a", "b", "c")}
    stop = {"a": 0, "b": 3, "c": 7}

    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request, attached=request.after_token > 0)
        yield scheduled()
        for index in range(request.after_token, 9):
            if index == stop[request.request_id]:
                await gate[request.request_id].wait()
            yield tokens(index)
        yield finished(9)

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        sinks = {name: Recorder() for name in gate}
        for name, sink in sinks.items():
            client.start("hi", sink=sink, request_id=name)
        await eventually(lambda: [len(sink.token_ids) for sink in sinks.values()] == [0, 3, 7])
        scheduler.sessions[0].break_off(Aborted(grpc.StatusCode.UNAVAILABLE, "Socket closed", ()))
        for each in gate.values():
            each.set()
        for sink in sinks.values():
            await sink.end()

    assert all(sink.token_ids == list(range(100, 109)) for sink in sinks.values())
    assert all(sink.text == whole_text(9) for sink in sinks.values())
    assert all(sink.told.count("accepted") == sink.told.count("scheduled") == 1 for sink in sinks.values())
    again = scheduler.sessions[1].messages[0]
    assert [each.request.request_id for each in again.submit] == ["a"], "without output its content goes again"
    assert [(each.request_id, each.after[0].after_token) for each in again.attach] == [("b", 3), ("c", 7)]


async def test_a_request_that_is_unknown_after_a_break_is_lost(scheduler: FakeScheduler) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        yield tokens(0)
        await asyncio.Event().wait()

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        sink = Recorder()
        client.start("hi", sink=sink, request_id="r")
        await eventually(lambda: bool(sink.token_ids))
        scheduler.forget("r")
        scheduler.sessions[0].break_off(Aborted(grpc.StatusCode.UNAVAILABLE, "Socket closed", ()))
        await sink.end()

    assert isinstance(sink.error, sage.StreamLostError)


async def test_a_session_whose_token_has_expired_is_opened_again_with_the_present_one(
    scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request, attached=request.after_token > 0)
        yield tokens(request.after_token)
        if request.after_token:
            yield finished(2)
        await asyncio.Event().wait()

    scheduler.generate = generate
    monkeypatch.setenv("SAGE_TOKEN", "old")
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        sink = Recorder()
        client.start("hi", sink=sink)
        await eventually(lambda: bool(sink.token_ids))
        monkeypatch.setenv("SAGE_TOKEN", "new")
        why = refusal(ErrorReason.UNAUTHENTICATED, "the token has expired")
        scheduler.sessions[0].break_off(Aborted(grpc.StatusCode.UNAUTHENTICATED, "the token has expired", why))
        await sink.end()

    assert sink.token_ids == [100, 101]
    assert [metadata["authorization"] for metadata in scheduler.session_metadata] == ["Bearer old", "Bearer new"]


async def test_a_scheduler_that_hands_over_is_waited_for_also_by_new_requests(scheduler: FakeScheduler) -> None:
    refused: list[str] = []
    real = scheduler.Session

    async def hand_over(requests: Any, context: Any) -> AsyncIterator[inference_pb2.SessionResponse]:
        if len(refused) < 2:
            refused.append("RECOVERING")
            await fail(context, ErrorReason.RECOVERING, "the scheduler hands over to the next one")
        async for message in real(requests, context):
            yield message

    scheduler.Session = hand_over  # type: ignore[method-assign]
    await scheduler.stop()
    await scheduler.start()
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        assert (await client.generate("hi", max_tokens=3).result()).token_ids == (100, 101, 102)
    assert len(refused) == 2


async def test_a_silent_scheduler_counts_as_broken(scheduler: FakeScheduler) -> None:
    scheduler.silence_s, scheduler.dumb = 0.15, True
    go_on = asyncio.Event()

    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request, attached=True)
        if len(scheduler.sessions) > 1:
            yield tokens(0)
            yield finished(1)
        await go_on.wait()

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        assert (await client.generate("hi").result()).token_ids == (100,)

    assert sum(bool(message.ping) for message in scheduler.sessions[0].messages) >= 1


async def test_pings_keep_an_idle_session(scheduler: FakeScheduler) -> None:
    scheduler.silence_s = 0.6
    async with AsyncClient(scheduler.address) as client:
        await client.generate("hi").result()
        await eventually(lambda: sum(bool(each.ping) for each in scheduler.sessions[0].messages) >= 8)
        await client.generate("hi").result()

    assert len(scheduler.sessions) == 1


async def test_a_session_that_is_not_opened_in_time_fails_its_requests(scheduler: FakeScheduler) -> None:
    async def say_nothing(requests: Any, context: Any) -> Any:
        await asyncio.Event().wait()
        yield

    scheduler.Session = say_nothing  # type: ignore[method-assign]
    await scheduler.stop()
    await scheduler.start()
    async with AsyncClient(scheduler.address, reconnect=Reconnect(submit_s=0.0)) as client:
        client._dispatcher._times = SessionTimes(open_s=0.1, bye_s=0.1)
        with pytest.raises(sage.UnavailableError, match=r"did not open a session within 0\.1 s"):
            await client.generate("hi").result()


async def test_a_defect_in_writing_breaks_the_session_and_not_its_requests(
    scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler.generate = endless
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        sink = Recorder()
        call = client.start("hi", sink=sink)
        await eventually(lambda: bool(sink.token_ids))
        said: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))
        with monkeypatch.context() as patch:
            patch.setattr(SessionOutbox, "_message", lambda _: 1 / 0)
            await eventually(lambda: bool(said))
        await eventually(lambda: len(scheduler.sessions) > 1)
        seen = len(sink.token_ids)
        await eventually(lambda: len(sink.token_ids) > seen)
        call.leave()

    assert said[0]["message"] == "a session could not be written"
    assert sink.token_ids == list(range(100, 100 + len(sink.token_ids)))


@pytest.mark.parametrize("number", [0, 2])
async def test_frames_that_do_not_count_up_are_refused(scheduler: FakeScheduler, number: int) -> None:
    async def miscount(requests: Any, context: Any) -> Any:
        async for _ in requests:
            yield inference_pb2.SessionResponse(opened=inference_pb2.Opened(protocol_version=1))
            yield inference_pb2.SessionResponse(frame=inference_pb2.SessionFrame(number=number))

    scheduler.Session = miscount  # type: ignore[method-assign]
    await scheduler.stop()
    await scheduler.start()
    async with AsyncClient(scheduler.address) as client:
        with pytest.raises(sage.ProtocolError, match=f"frame {number} came after frame 0"):
            await client.generate("hi").result()


# --- acknowledgements and slow readers ------------------------------------------------------------------------------


async def test_every_eighth_frame_is_acknowledged_and_the_last_one_soon(scheduler: FakeScheduler) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        for index in range(100):
            (session,) = scheduler.sessions
            frames = len(session.frames)
            yield tokens(index)
            await eventually(lambda: len(session.frames) > frames, every_s=0.001)  # noqa: B023
        yield finished(100)

    scheduler.generate = generate
    async with AsyncClient(scheduler.address) as client:
        assert len((await client.generate("hi").result()).token_ids) == 100
        (session,) = scheduler.sessions
        await eventually(lambda: session.acknowledged == len(session.frames))

    told = [message.acknowledged for message in session.messages if message.acknowledged]
    assert all(later - earlier <= 9 for earlier, later in zip([0, *told], told, strict=False))
    assert len(told) < 50, "frames are acknowledged together"


async def test_a_slow_reader_is_paused_and_the_others_notice_nothing(scheduler: FakeScheduler) -> None:
    count = 1000

    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        yield scheduled()
        for index in range(count if request.request_id == "slow" else 300):
            yield tokens(index)
            await asyncio.sleep(0.001)
        yield finished(index + 1)

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, buffer_bytes=4000) as client:
        slow = client.generate("hi", request_id="slow")
        await eventually(lambda: any(each.pause for session in scheduler.sessions for each in session.messages))
        assert len((await client.generate("hi").result()).token_ids) == 300
        result = await slow.result()

    assert result.token_ids == tuple(range(100, 100 + count))
    messages = scheduler.sessions[0].messages
    paused = [handle for message in messages for handle in message.pause]
    assert set(paused) == {1}, "the other stream is not paused"
    assert {handle for message in messages for handle in message.resume} == {1}


async def test_a_handle_that_was_given_up_while_it_was_paused_is_attached_again(scheduler: FakeScheduler) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        for event in events(request, 500, attached=request.after_token > 0):
            yield event
            await asyncio.sleep(0.001)

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, buffer_bytes=2000) as client:
        stream = client.generate("hi", request_id="r")
        await eventually(lambda: bool(scheduler.sessions and scheduler.sessions[0]._paused))
        scheduler.sessions[0].give_up_paused()
        await eventually(lambda: bool(client._dispatcher._live) and not scheduler.sessions[0]._waiting[1])
        result = await stream.result()

    assert result.token_ids == tuple(range(100, 600))
    assert [each.request_id for message in scheduler.sessions[0].messages for each in message.attach] == ["r"]


async def test_a_given_up_handle_whose_request_is_gone_fails_with_the_first_reason(scheduler: FakeScheduler) -> None:
    scheduler.generate = endless
    async with AsyncClient(scheduler.address) as client:
        sink = Recorder()
        call = client.start("hi", sink=sink, request_id="r")
        await eventually(lambda: bool(sink.token_ids))
        call.pause()
        await eventually(lambda: bool(scheduler.sessions[0]._paused))
        scheduler.forget("r")
        scheduler.sessions[0].give_up_paused()
        await eventually(lambda: call.parked is not None)
        call.resume()
        await sink.end()

    assert isinstance(sink.error, sage.TryAgainError)
    assert "paused for 30 s" in str(sink.error)


async def endless(request: inference_pb2.GenerateRequest, context: Any) -> Events:
    yield accepted(request, attached=request.after_token > 0)
    index = request.after_token
    while True:
        yield tokens(index)
        index += 1
        await asyncio.sleep(0.001)


# --- leaving --------------------------------------------------------------------------------------------------------


async def dropped(client: AsyncClient) -> None:
    async for _ in client.generate("hi"):
        break


async def closed(client: AsyncClient) -> None:
    stream = client.generate("hi")
    await anext(stream)
    await stream.aclose()


async def cancelled(client: AsyncClient) -> None:
    async def read() -> None:
        async for _ in stream:
            pass

    stream = client.generate("hi")
    await anext(stream)
    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait([reader])


async def timed_out(client: AsyncClient) -> None:
    with pytest.raises(sage.WaitTimeoutError):
        await client.generate("hi", timeout=0.1).result()


async def left_by_its_sink(client: AsyncClient) -> None:
    sink = Recorder()
    call = client.start("hi", sink=sink)
    await eventually(lambda: sink.told == ["accepted"])
    call.leave()
    call.leave()


async def raised_in_a_sink(client: AsyncClient) -> None:
    class Broken(Recorder):
        def accepted(self, event: sage.Accepted, /) -> None:
            raise ValueError("a defect")

    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))
    client.start("hi", sink=Broken(), request_id="r")
    await eventually(lambda: bool(said))
    assert "request r is left" in said[0]["message"]
    assert isinstance(said[0]["exception"], ValueError)


@pytest.mark.parametrize("way", [dropped, closed, cancelled, timed_out, left_by_its_sink, raised_in_a_sink])
async def test_who_goes_away_leaves_the_handle_and_the_session_stays(
    way: Callable[[AsyncClient], Any], scheduler: FakeScheduler
) -> None:
    scheduler.generate = wait_forever
    async with AsyncClient(scheduler.address) as client:
        await way(client)
        gc.collect()
        await asyncio.wait_for(scheduler.left.wait(), 5)
        assert [handle for message in scheduler.sessions[0].messages for handle in message.leave] == [1]
        scheduler.generate = generate_one
        assert (await client.generate("hi").result()).token_ids == (100,)
        assert client._dispatcher._live == {}

    assert len(scheduler.sessions) == 1


async def generate_one(request: inference_pb2.GenerateRequest, context: Any) -> Events:
    for event in events(request, 1):
        yield event


async def test_what_was_left_before_it_was_written_is_not_sent(scheduler: FakeScheduler) -> None:
    async with AsyncClient(scheduler.address) as client:
        client.start("hi", sink=Recorder()).leave()
        await client.generate("ho").result()

    assert [request.spec.text for request in scheduler.requests] == ["ho"]
    assert not any(message.leave for message in scheduler.sessions[0].messages)


# --- sinks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sessions", [True, False])
async def test_a_sink_gets_everything_in_order_and_may_start_another(scheduler: FakeScheduler, sessions: bool) -> None:
    class Starter(Recorder):
        def finished(self, event: sage.Finished, /) -> None:
            super().finished(event)
            client.start("ho", sink=second, max_tokens=2)

    first, second = Starter(), Recorder()
    async with AsyncClient(scheduler.address, use_sessions=sessions) as client:
        call = client.start("hi", sink=first, max_tokens=5)
        assert call.request_id
        await first.end()
        await second.end()

    assert [*dict.fromkeys(first.told)] == ["accepted", "scheduled", "tokens", "finished"]
    assert (first.text, second.text) == (whole_text(5), whole_text(2))
    assert call.over


@pytest.mark.parametrize("sessions", [True, False])
@pytest.mark.parametrize("method", ["accepted", "scheduled", "tokens", "finished"])
async def test_a_sink_that_raises_cancelled_error_harms_no_other(
    scheduler: FakeScheduler, sessions: bool, method: str
) -> None:
    def look_at_a_cancelled_future(*event: Any) -> None:
        raise asyncio.CancelledError

    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))
    async with AsyncClient(scheduler.address, use_sessions=sessions) as client:
        wrong, other = Recorder(), Recorder()
        setattr(wrong, method, look_at_a_cancelled_future)
        call = client.start("hi", sink=wrong, max_tokens=5)
        client.start("ho", sink=other, max_tokens=5)
        await other.end()
        await eventually(lambda: call.over)
        assert len(scheduler.sessions) == sessions

    assert other.text == whole_text(5)
    assert [type(each["exception"]) for each in said] == [asyncio.CancelledError]
    assert wrong.told.count("failed") == 0


@pytest.mark.parametrize("sessions", [True, False])
async def test_a_sinks_request_can_be_paused_and_resumed(scheduler: FakeScheduler, sessions: bool) -> None:
    scheduler.generate = endless
    async with AsyncClient(scheduler.address, use_sessions=sessions) as client:
        sink = Recorder()
        call = client.start("hi", sink=sink)
        await eventually(lambda: bool(sink.token_ids))
        call.pause()
        await client.cancel("nobody")  # by now the scheduler has read it
        await asyncio.sleep(0.05)
        seen = len(sink.token_ids)
        await asyncio.sleep(0.05)
        assert len(sink.token_ids) == seen
        call.resume()
        await eventually(lambda: len(sink.token_ids) > seen)
        call.leave()

    assert sink.token_ids == list(range(100, 100 + len(sink.token_ids)))


@pytest.mark.parametrize("sessions", [True, False])
async def test_a_sink_is_told_why_a_request_was_refused(scheduler: FakeScheduler, sessions: bool) -> None:
    async def refuse(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        await fail(context, ErrorReason.UNKNOWN_MODEL, "no such model")
        yield accepted(request)

    scheduler.generate = refuse
    async with AsyncClient(scheduler.address, use_sessions=sessions) as client:
        sink = Recorder()
        client.start("hi", sink=sink, request_id="r")
        await sink.end()

    assert sink.told == ["failed"]
    assert isinstance(sink.error, sage.UnknownModelError)
    assert (sink.error.request_id, sink.error.metadata) == ("r", {"model": "tiny"})


@pytest.mark.parametrize("sessions", [True, False])
async def test_a_closed_client_says_so(scheduler: FakeScheduler, sessions: bool) -> None:
    client = AsyncClient(scheduler.address, use_sessions=sessions)
    await client.close()
    await client.close()
    for ask in (lambda: client.generate("hi"), lambda: client.start("hi", sink=Recorder())):
        with pytest.raises(sage.UnavailableError, match="the client is closed"):
            ask()
    with pytest.raises(sage.UnavailableError, match="the client is closed"):
        await client.get_policy()


async def test_a_defect_in_reading_generate_ends_the_request(
    scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: Any) -> None:
        raise ValueError("a defect")

    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))
    monkeypatch.setattr("sage_client._decode.accepted", break_down)
    async with AsyncClient(scheduler.address, use_sessions=False) as client:
        with pytest.raises(sage.InternalError, match="reading the request's stream failed"):
            await client.generate("hi").result()
    assert [type(each["exception"]) for each in said] == [ValueError]
