"""The stream of one request's events."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from sage_client._call import Call
from sage_client._completion import Completion, CompletionBuilder
from sage_client._errors import RequestCancelledError
from sage_client._event_queue import EventQueue
from sage_client._events import Event, Finished, Tokens
from sage_client._fleet_view import Cancellation
from sage_client._response_format import ResponseFormat


class AsyncStream:
    """An asynchronous iterator over a request's events; creating the stream sends the request.

    If the connection breaks after the request was accepted, the stream reattaches to the request by its id and
    continues at its position: a caller gets each token once and in order.  Every failure is raised as a
    ``SageError``, once by the iteration and again by ``result()``.  One task at a time may read; another may
    call ``cancel``.

    Output that is not read yet is merged into one event.  Where more of it waits than the client's ``buffer_bytes``,
    the stream pauses until half is read; other streams notice nothing.

    Closing the stream early (``async with``, ``aclose``), cancelling the task that reads it, or dropping the last
    reference to it cancels the request, unless it is detached.
    """

    def __init__(self, call: Call, events: EventQueue, response_format: type[ResponseFormat] | None = None) -> None:
        self._call = call
        self._events = events
        self._outcome = CompletionBuilder(response_format=response_format)
        self._next_token = call.request.after_token
        self._over = False
        self._closed = False
        events.call = call
        _leave_when_dropped(self, call)

    @property
    def request_id(self) -> str:
        """Id of the request, known before the scheduler answers."""
        return self._call.request_id

    @property
    def timeout_s(self) -> float:
        """Seconds that the whole stream may take."""
        return self._call.timeout_s

    @property
    def next_token(self) -> int:
        """Output position after the last delivered token; ``after_token`` of a stream that continues here."""
        return self._next_token

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event: Event | None = None
        while event is None:
            event = self._waiting()
            if event is None:
                try:
                    event = await self._events.arrival()
                except asyncio.CancelledError:
                    self._leave()
                    raise
        if type(event) is Tokens and not event.choice:
            self._next_token = event.first_index + len(event.token_ids)
        elif type(event) is Finished:
            self._over = True
        self._outcome.take(event)
        return event

    async def text(self) -> AsyncIterator[str]:
        """Yield the output text, piece by piece."""
        async for event in self:
            if isinstance(event, Tokens) and event.choice == 0 and event.text:
                yield event.text

    async def result(self) -> Completion:
        """Read the stream to its end and return the request's outcome.

        Raises:
            OutputInvalidError: the output does not fit ``response_format``.
            SageError: the request ended with an error.
        """
        async for _ in self:
            pass
        if self._closed and not self._over:
            closed = RequestCancelledError("the stream was closed before its end", request_id=self.request_id)
            closed.partial = self._outcome.partial()
            raise closed
        return self._outcome.build()

    async def cancel(self, reason: str = "") -> Cancellation:
        """Cancel the request, detached or not; the stream then ends with RequestCancelledError.  Idempotent."""
        return await self._call.cancel(reason)

    async def aclose(self) -> None:
        """Close the stream; the scheduler cancels the request, unless it is detached."""
        self._leave()
        self._events.wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _waiting(self) -> Event | None:
        """Return the oldest event that waits, None if there is none yet; raise at the stream's end."""
        if self._closed:
            raise StopAsyncIteration
        event = self._events.take()
        if event is None and self._over:
            raise StopAsyncIteration
        if event is None and (error := self._events.error) is not None:
            error.partial = self._outcome.partial()
            raise error
        return event

    def _leave(self) -> None:
        self._closed = True
        self._call.leave()


def _leave_when_dropped(stream: AsyncStream, call: Call) -> None:
    """Leave the call once ``stream`` is garbage, from the thread that collects it.

    The call's transport keeps it until its end, and it must not refer to the stream.  The finalizer keeps nothing
    alive: the failure of a call that is over refers to frames, and they to the stream.  At the interpreter's exit
    nothing is done: the connection ends with the process.
    """
    loop = asyncio.get_running_loop()
    known = weakref.ref(call)

    def leave() -> None:
        call = known()
        if call is not None and not call.over:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections with it
                loop.call_soon_threadsafe(call.leave)

    weakref.finalize(stream, leave).atexit = False
