"""The stream of one request's events.  ``_reattach`` continues it after a broken connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Self, cast

import grpc

from sage.controlplane.v1 import inference_pb2
from sage_client._completion import Completion, CompletionBuilder
from sage_client._current_call import CurrentCall, GenerateCall, Opener
from sage_client._decode import event as decode_event
from sage_client._enums import RequestState
from sage_client._errors import (
    ProtocolError,
    RequestCancelledError,
    RequestNotFoundError,
    SageError,
    StreamLostError,
    UnavailableError,
    WaitTimeoutError,
)
from sage_client._events import Accepted, Event, Finished, Scheduled, Tokens
from sage_client._fleet_view import Cancellation
from sage_client._output_cursor import OutputCursor
from sage_client._reconnect import Reconnect
from sage_client._status import error_from_rpc, is_transport_break

Canceller = Callable[[str, str, str], Awaitable[Cancellation]]


class AsyncStream:
    """An asynchronous iterator over a request's events; creating the stream sends the request.

    If the connection breaks after the request was accepted, the stream reattaches to the request by its id and
    continues at its position: a caller gets each token once and in order.  Every failure is raised as a
    ``SageError``, once by the iteration and again by ``result()``.  One task at a time may read; another may
    call ``cancel``.

    Closing the stream early (``async with``, ``aclose``), or dropping the last reference to it, cancels the request,
    unless it is detached.
    """

    def __init__(
        self,
        request: inference_pb2.GenerateRequest,
        *,
        open_call: Opener,
        cancel: Canceller,
        timeout_s: float,
        reconnect: Reconnect,
    ) -> None:
        self._request = request
        self._cancel = cancel
        self.timeout_s = timeout_s  # seconds that the whole stream may take
        self._end = asyncio.get_running_loop().time() + timeout_s
        self._reconnect = reconnect
        self._attempts = 0  # reattach attempts since the last token
        self._cursors: dict[int, OutputCursor] = {}
        self._outcome = CompletionBuilder()
        self._over = False
        self._closed = False
        self._cancelled = False  # whether ``cancel`` was called on this stream
        self._broke = False  # whether the connection broke at least once
        self._error: SageError | None = None
        self._current = CurrentCall(request, open_call)
        self._current.cancel_when_dropped(self)

    @property
    def _call(self) -> GenerateCall:
        return self._current.call

    @property
    def request_id(self) -> str:
        """Id of the request, known before the scheduler answers."""
        return self._request.request_id

    @property
    def next_token(self) -> int:
        """Output position after the last delivered token; ``after_token`` of a stream that continues here."""
        return self._cursor(0).next_index

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._error is not None:
            raise self._error
        if self._over or self._closed:
            raise StopAsyncIteration
        try:
            return await self._next_event()
        except SageError as error:
            self._error = error
            self._call.cancel()
            raise

    async def text(self) -> AsyncIterator[str]:
        """Yield the output text, piece by piece."""
        async for event in self:
            if isinstance(event, Tokens) and event.choice == 0 and event.text:
                yield event.text

    async def result(self) -> Completion:
        """Read the stream to its end and return the request's outcome.

        Raises:
            SageError: the request ended with an error.
        """
        async for _ in self:
            pass
        if self._closed and not self._over:
            raise RequestCancelledError("the stream was closed before its end", request_id=self.request_id)
        return self._outcome.build()

    async def cancel(self, reason: str = "") -> Cancellation:
        """Cancel the request, detached or not; the stream then ends with RequestCancelledError.  Idempotent."""
        self._cancelled = True
        try:
            return await self._cancel(self.request_id, self._request.tenant, reason)
        except RequestNotFoundError:
            if self._outcome.accepted is not None or self._call.done():
                raise
        return await self._cancel_unaccepted(reason)

    async def _cancel_unaccepted(self, reason: str) -> Cancellation:
        """Cancel a request that was not accepted yet."""
        self._call.cancel()
        try:
            # If the request was accepted meanwhile and is detached, it would keep running without this stream.
            found = await self._cancel(self.request_id, self._request.tenant, reason)
        except RequestNotFoundError:
            return Cancellation(cancelled=True, state=RequestState.CANCELLED)
        return replace(found, cancelled=found.cancelled or found.state is RequestState.CANCELLED)

    async def aclose(self) -> None:
        """Close the stream; the scheduler cancels the request, unless it is detached."""
        self._closed = True
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _next_event(self) -> Event:
        while True:
            event = self._take(decode_event(await self._read()))
            if event is not None:
                self._outcome.take(event)
                return event

    def _take(self, event: Event) -> Event | None:
        """Return the part of an event that the caller did not get yet; None if there is none."""
        match event:
            case Tokens():
                return self._take_tokens(event)
            case Scheduled():
                # After a reattach the scheduler repeats the current placement.
                known = any(event.decision.attempt == each.attempt for each in self._outcome.decisions)
                return None if known else event
            case Accepted():
                return self._take_accepted(event)
            case Finished():
                self._over = True
        return event

    def _take_accepted(self, event: Accepted) -> Accepted | None:
        if self._outcome.accepted is None:
            return event
        if not event.attached and self.next_token > self._request.after_token:
            # Raising closes the stream: the scheduler then cancels the new run, unless it is detached.
            new_run = (
                "the new run goes on without this stream" if self._request.detached else "the new run is cancelled"
            )
            raise StreamLostError(
                f"after {self.next_token} output tokens the scheduler no longer knew the request and began it again; "
                f"the new output may differ, so this stream ends and {new_run}",
                request_id=self.request_id,
            )
        return None

    def _take_tokens(self, event: Tokens) -> Tokens | None:
        fresh = self._cursor(event.choice).advance(event)
        if fresh is not None:
            self._attempts = 0
        return fresh

    def _cursor(self, choice: int) -> OutputCursor:
        start = self._request.after_token
        fresh = OutputCursor(next_index=start, next_offset=None if start else 0)
        return self._cursors.setdefault(choice, fresh)

    async def _read(self) -> inference_pb2.GenerateResponse:
        while True:
            try:
                async with asyncio.timeout_at(self._end):
                    response = await self._read_once()
            except TimeoutError:
                raise self._timed_out() from None
            if response is not None:
                return response

    async def _read_once(self) -> inference_pb2.GenerateResponse | None:
        """Read one message; return None after a reattach."""
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            failure = error_from_rpc(error, request_id=self.request_id)
        except asyncio.CancelledError:
            self._call.cancel()
            if _is_being_cancelled():
                raise
            if self._closed:
                raise StopAsyncIteration from None
            if self._cancelled:
                raise RequestCancelledError("cancelled before it was accepted", request_id=self.request_id) from None
            raise
        else:
            if response is grpc.aio.EOF:
                raise ProtocolError("the scheduler ended the stream without Finished", request_id=self.request_id)
            return cast(inference_pb2.GenerateResponse, response)
        # Outside of the except block: gRPC's error adds nothing to a traceback of ``failure``.
        if isinstance(failure, RequestCancelledError) and self._break_may_have_cancelled:
            raise self._cancelled_by_break(failure)
        if isinstance(failure, RequestNotFoundError) and self._broke:
            raise self._lost(failure)
        await self._reattach(failure)
        return None

    async def _reattach(self, failure: SageError) -> None:
        """Reattach at the current position after a delay.

        Raise ``failure`` if it is not a broken connection, the request was not accepted, or no attempt is left.
        """
        was_accepted = self._outcome.accepted is not None
        if not (is_transport_break(failure) and was_accepted and self._attempts < self._reconnect.attempts):
            raise failure
        self._broke = True
        self._attempts += 1
        await asyncio.sleep(self._reconnect.delay_s(self._attempts))
        request = inference_pb2.GenerateRequest()
        request.CopyFrom(self._request)
        request.after_token = self.next_token
        self._current.reopen(request)

    def _lost(self, failure: RequestNotFoundError) -> StreamLostError:
        """Return the error for a request that the scheduler no longer knew when this stream attached to it again."""
        return StreamLostError(
            f"after {self.next_token} output tokens the scheduler no longer knew the request ({failure.message})",
            status=failure.status,
            request_id=self.request_id,
        )

    @property
    def _break_may_have_cancelled(self) -> bool:
        """Whether the scheduler may have cancelled the request because the connection broke."""
        return self._broke and not self._request.detached and not self._cancelled

    def _cancelled_by_break(self, failure: SageError) -> UnavailableError:
        """Return the error for a request that the scheduler cancelled because the connection broke."""
        return UnavailableError(
            f"the connection broke and the scheduler cancelled the request ({failure.message}); "
            "a detached request would be kept",
            status=failure.status,
            request_id=self.request_id,
        )

    def _timed_out(self) -> WaitTimeoutError:
        return WaitTimeoutError(f"the request did not end within {self.timeout_s:g} s", request_id=self.request_id)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
