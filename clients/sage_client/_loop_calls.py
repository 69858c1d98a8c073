"""Calls of an asynchronous client from other threads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, TypeVar

from sage_client._async_client import AsyncClient
from sage_client._loop_thread import LoopThread
from sage_client._stream import WAIT_MARGIN_S

_T = TypeVar("_T")


class LoopCalls:
    """Calls of one ``AsyncClient``, which runs on an event loop in a thread of its own."""

    _client: AsyncClient
    _loop: LoopThread
    _timeout: float  # seconds that a call other than a stream may take
    _stream_timeout: float  # seconds that a stream may take

    def _each(self, values: AsyncGenerator[_T, None], *, wait_s: float) -> Generator[_T, None, None]:
        """Yield what an asynchronous generator yields.  ``wait_s`` catches one that is stuck."""

        async def step() -> tuple[_T] | None:
            try:
                return (await anext(values),)
            except StopAsyncIteration:
                return None

        try:
            while (found := self._loop.run(step(), timeout_s=wait_s + WAIT_MARGIN_S)) is not None:
                yield found[0]
        finally:
            if self._loop.running:
                self._loop.run(values.aclose(), timeout_s=WAIT_MARGIN_S)

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        # The call has a timeout of its own; this one only catches a stuck event loop.
        return self._loop.run(work, timeout_s=self._timeout + WAIT_MARGIN_S)
