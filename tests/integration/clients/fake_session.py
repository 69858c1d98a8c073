"""A session small enough to read: it carries what a fake scheduler's ``generate`` yields for each of its requests."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_wire.errors import DOMAIN, ErrorReason

Events = AsyncIterator[inference_pb2.GenerateResponse]
Generate = Callable[[inference_pb2.GenerateRequest, Any], Events]
Metadata = dict[str, str]

WINDOW = 32


def refusal(reason: ErrorReason, message: str, *details: Any, **facts: str) -> tuple[tuple[str, bytes]]:
    """The trailing metadata of a refusal."""
    status = status_pb2.Status(code=reason.status.value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason=reason.code, domain=DOMAIN, metadata={"model": "tiny", **facts})
    for detail in (info, *details):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def bad_fields(**violations: str) -> error_details_pb2.BadRequest:
    """Double underscores stand for dots."""
    violation = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(
        field_violations=[
            violation(field=name.replace("__", "."), description=text) for name, text in violations.items()
        ]
    )


def _status(reason: ErrorReason, message: str) -> status_pb2.Status:
    ((_, packed),) = refusal(reason, message)
    return status_pb2.Status.FromString(packed)


class Aborted(Exception):
    """A request, or the connection, was ended with a status."""

    def __init__(self, code: grpc.StatusCode, message: str, trailing: Sequence[tuple[str, bytes]]) -> None:
        super().__init__(message)
        self.status = status_pb2.Status(code=code.value[0], message=message)
        for _, packed in trailing:
            self.status = status_pb2.Status.FromString(packed)

    @property
    def code(self) -> grpc.StatusCode:
        return next(each for each in grpc.StatusCode if each.value[0] == self.status.code)

    @property
    def breaks_connection(self) -> bool:
        return self.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) and not self.status.details


class RequestContext:
    """What ``generate`` sees of the call: a request of a session has none of its own."""

    async def abort(
        self, code: grpc.StatusCode, message: str, trailing_metadata: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        raise Aborted(code, message, trailing_metadata)


class FakeSession:
    """One stream.  It checks what the contract asks of a client, and writes frames as fast as they are acknowledged."""

    def __init__(
        self,
        generate: Generate,
        known: dict[str, inference_pb2.GenerateRequest],
        note: Callable[[inference_pb2.GenerateRequest, Metadata], None],
        left: asyncio.Event,
        *,
        repeats: int,
        silence_s: float,
        epoch: int = 7,
        led: bool = False,
        dumb: bool,
    ) -> None:
        self._generate = generate
        self._known = known  # by id: requests as they were submitted
        self._note = note
        self._left = left
        self._repeats = repeats  # tokens that a reattachment is sent a second time
        self._silence_s = silence_s
        self._epoch = epoch
        self._led = led
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._used: set[int] = set()
        self._paused: set[int] = set()
        self._waiting: dict[int, deque[Any]] = defaultdict(deque)  # by handle: events, and the status of its end
        self._positions: dict[int, tuple[int, int]] = {}  # by handle: where its columns are
        self._news = asyncio.Event()
        self._break: Aborted | None = None
        self._over = False
        self._sent = self.acknowledged = 0
        self.messages: list[inference_pb2.SessionRequest] = []
        self.dumb = dumb  # answers no ping
        self.frames: list[inference_pb2.SessionFrame] = []

    async def run(self, requests: AsyncIterator[inference_pb2.SessionRequest], context: Any) -> AsyncIterator[Any]:
        """Yield the session's messages; raise Aborted where the connection is to break."""
        first = await anext(requests)
        assert first.HasField("open"), "the first message has Open"
        opened = inference_pb2.Opened(protocol_version=1, epoch=self._epoch, window=WINDOW)
        opened.silence.FromMilliseconds(int(self._silence_s * 1000))
        if self._led:
            opened.leader_lease.FromMilliseconds(int(self._silence_s * 1000))
        opened.grace.FromSeconds(2)
        yield inference_pb2.SessionResponse(opened=opened)
        pongs: deque[int] = deque()
        self._take(first, pongs)
        reader = asyncio.create_task(self._read(requests, pongs))
        try:
            while not self._over:
                await self._news.wait()
                self._news.clear()
                while pongs:
                    yield inference_pb2.SessionResponse(pong=pongs.popleft())
                while self._sent - self.acknowledged < WINDOW and (frame := self._frame()) is not None:
                    self.frames.append(frame)
                    yield inference_pb2.SessionResponse(frame=frame)
                if self._break is not None:
                    raise self._break
        finally:
            self.end()
            reader.cancel()

    def end(self) -> None:
        """End the stream, and what runs on it."""
        self._over = True
        self._news.set()
        for task in self._tasks.values():
            task.cancel()

    def give_up_paused(self) -> None:
        """End the paused handles, as the contract allows some time after their requests' end."""
        for handle in sorted(self._paused):
            self._drop(handle)
            self._waiting[handle].append(_status(ErrorReason.LIMIT_REACHED, "paused for 30 s after its end"))
        self._paused.clear()
        self._news.set()

    def break_off(self, why: Aborted) -> None:
        """End the stream with a status."""
        self._break = why
        self._news.set()

    async def _read(self, requests: AsyncIterator[inference_pb2.SessionRequest], pongs: deque[int]) -> None:
        async for message in requests:
            self._take(message, pongs)
        self.end()

    def _take(self, message: inference_pb2.SessionRequest, pongs: deque[int]) -> None:
        self.messages.append(message)
        for submit in message.submit:
            self._known[submit.request.request_id] = submit.request
            self._begin(submit.handle, submit.request, _headers(submit.trace_context))
        for attach in message.attach:
            self._attach(attach)
        self._paused |= set(message.pause)
        self._paused -= set(message.resume)
        for handle in message.leave:
            self._drop(handle)
        if message.acknowledged:
            assert message.acknowledged <= self._sent, "acknowledgement of a frame that was not sent"
            self.acknowledged = message.acknowledged
        if message.ping and not self.dumb:
            pongs.append(message.ping)
        if message.bye:
            self.end()
        self._news.set()

    def _attach(self, attach: inference_pb2.AttachHandle) -> None:
        found = self._known.get(attach.request_id)
        if found is None:
            self._waiting[attach.handle].append(_status(ErrorReason.REQUEST_NOT_FOUND, "no request of this id"))
            return
        request = inference_pb2.GenerateRequest()
        request.CopyFrom(found)
        request.after_token = next((each.after_token for each in attach.after if each.choice == 0), 0)
        self._begin(attach.handle, request, {})

    def _begin(self, handle: int, request: inference_pb2.GenerateRequest, metadata: Metadata) -> None:
        assert handle, "handle 0"
        assert handle not in self._used, f"handle {handle} was used before"
        self._used.add(handle)
        self._note(request, metadata)
        begin = max(request.after_token - self._repeats, 0)
        self._positions[handle] = (begin, 2 * begin)
        self._tasks[handle] = asyncio.create_task(self._run(handle, request))

    def _drop(self, handle: int) -> None:
        self._waiting.pop(handle, None)
        if task := self._tasks.pop(handle, None):
            task.cancel()

    async def _run(self, handle: int, request: inference_pb2.GenerateRequest) -> None:
        try:
            async for event in self._generate(request, RequestContext()):
                self._waiting[handle].append(event)
                self._news.set()
        except Aborted as aborted:
            if aborted.breaks_connection:
                self._break = aborted
            else:
                self._waiting[handle].append(aborted.status)
            self._news.set()
        except asyncio.CancelledError:
            self._left.set()
            raise

    def _frame(self) -> inference_pb2.SessionFrame | None:
        frame = inference_pb2.SessionFrame(number=self._sent + 1)
        empty = frame.ByteSize()
        for handle, events in list(self._waiting.items()):
            while events and handle not in self._paused and self._add(frame, handle, events[0]):
                events.popleft()
        if frame.ByteSize() == empty:
            return None
        self._sent += 1
        return frame

    def _add(self, frame: inference_pb2.SessionFrame, handle: int, event: Any) -> bool:
        """Add an event; False if the next frame must have it."""
        if isinstance(event, status_pb2.Status):
            frame.failed.add(handle=handle, status=event)
            return True
        kind = event.WhichOneof("event")
        if kind == "accepted":
            index, offset = self._positions[handle]
            accepted = frame.accepted.add(handle=handle, accepted=event.accepted)
            accepted.positions.add(choice=0, after_token=index, text_offset=offset)
        elif kind == "scheduled":
            if handle in frame.handles or any(each.handle == handle for each in frame.pieces):
                return False
            frame.scheduled.add(handle=handle, scheduled=event.scheduled)
        elif kind == "finished":
            frame.finished.add(handle=handle, finished=event.finished)
        else:
            self._add_tokens(frame, handle, event.tokens)
        return True

    def _add_tokens(self, frame: inference_pb2.SessionFrame, handle: int, tokens: inference_pb2.Tokens) -> None:
        position = tokens.first_index, tokens.text_offset
        if tokens.logprobs or tokens.choice or position != self._positions[handle]:
            frame.pieces.add(handle=handle, tokens=tokens)
            return
        self._positions[handle] = position[0] + len(tokens.token_ids), position[1] + len(tokens.text)
        frame.handles.append(handle)
        frame.counts.append(len(tokens.token_ids))
        frame.token_ids.extend(tokens.token_ids)
        frame.text_lengths.append(len(tokens.text))
        frame.text += tokens.text


def _headers(context: common_pb2.TraceContext) -> Metadata:
    named = {"traceparent": context.traceparent, "tracestate": context.tracestate}
    return {name: value for name, value in named.items() if value}
