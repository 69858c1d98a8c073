"""The stream of one request's events, for callers without an event loop."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from sage_client._async_stream import AsyncStream
from sage_client._completion import Completion
from sage_client._events import Event, Tokens
from sage_client._fleet_view import Cancellation
from sage_client._loop_thread import LoopThread

WAIT_MARGIN_S = 5.0


class Stream:
    """A blocking iterator over a request's events; creating the stream sends the request.

    It behaves like ``AsyncStream``.  One thread at a time may read; other threads may call ``cancel`` and ``close``.
    Interrupting a read (Ctrl-C) closes the stream: the request is cancelled, unless it is detached.
    """

    def __init__(self, stream: AsyncStream, loop: LoopThread, *, call_timeout_s: float) -> None:
        self._stream = stream
        self._loop = loop
        # The stream has a timeout of its own; this one only catches a stuck event loop.
        self._wait_s = stream.timeout_s + WAIT_MARGIN_S
        self._call_wait_s = call_timeout_s + WAIT_MARGIN_S

    @property
    def request_id(self) -> str:
        """Id of the request, known before the scheduler answers."""
        return self._stream.request_id

    @property
    def next_token(self) -> int:
        """Output position after the last delivered token."""
        return self._stream.next_token

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self._loop.run(self._next(), timeout_s=self._wait_s)
        if event is None:
            raise StopIteration
        return event

    def text(self) -> Iterator[str]:
        """Yield the output text, piece by piece."""
        for event in self:
            if isinstance(event, Tokens) and event.choice == 0 and event.text:
                yield event.text

    def result(self) -> Completion:
        """Read the stream to its end and return the request's outcome.

        Raises:
            SageError: the request ended with an error.
        """
        return self._loop.run(self._stream.result(), timeout_s=self._wait_s)

    def cancel(self, reason: str = "") -> Cancellation:
        """Cancel the request, detached or not; the stream then ends with RequestCancelledError.  Idempotent."""
        return self._loop.run(self._stream.cancel(reason), timeout_s=self._call_wait_s)

    def close(self) -> None:
        """Close the stream; the scheduler cancels the request, unless it is detached."""
        self._loop.run(self._stream.aclose(), timeout_s=self._call_wait_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _next(self) -> Event | None:
        """Return the next event; None at the end, because StopIteration cannot leave a coroutine."""
        return await anext(self._stream, None)
