"""A bounded queue of messages for one stream; putting never waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

M = TypeVar("M")


class Overflow(Exception):
    """The queue is full: the other side does not read."""


class Outbox(Generic[M]):
    """Messages that wait for one stream, in order; one task reads them."""

    def __init__(
        self, limit: int, *, limit_bytes: int | None = None, size: Callable[[M], int] = lambda message: 0
    ) -> None:
        """Make an empty outbox.

        ``limit``: messages that may wait; ``limit_bytes``: bytes of them, by ``size``, beside one message of any size.
        """
        self._messages: deque[tuple[M, int]] = deque()
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._size = size
        self._bytes = 0
        self._ready = asyncio.Event()
        self._closed: str | None = None

    def put(self, message: M) -> None:
        """Queue a message.  Raises Overflow at a limit.  After ``close`` messages are dropped."""
        if self._closed is not None:
            return
        size = self._size(message)
        if len(self._messages) >= self._limit or self._too_large(size):
            raise Overflow
        self._messages.append((message, size))
        self._bytes += size
        self._ready.set()

    def _too_large(self, size: int) -> bool:
        return self._limit_bytes is not None and bool(self._messages) and self._bytes + size > self._limit_bytes

    def close(self, reason: str) -> None:
        """End the stream with ``reason`` once the queue is empty.  The first reason counts."""
        if self._closed is None:
            self._closed = reason
            self._ready.set()

    def clear(self) -> None:
        """Drop what waits."""
        self._messages.clear()
        self._bytes = 0

    async def get(self) -> M:
        """Return the next message, waiting for it.  Raises EOFError with the reason once closed and empty."""
        while not self._messages:
            if self._closed is not None:
                raise EOFError(self._closed)
            self._ready.clear()
            await self._ready.wait()
        return self._pop()

    def get_more(self, wanted: Callable[[M], bool], *, messages: int, size: int) -> list[M]:
        """Return the messages that wait next, as long as each is ``wanted``; none if no such message waits.

        At most ``messages`` of them, and of ``size`` bytes together.
        """
        found: list[M] = []
        while self._messages and len(found) < messages:
            message, taken = self._messages[0]
            size -= taken
            if size < 0 or not wanted(message):
                break
            found.append(self._pop())
        return found

    def _pop(self) -> M:
        message, size = self._messages.popleft()
        self._bytes -= size
        return message
