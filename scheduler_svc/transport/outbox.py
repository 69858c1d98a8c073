"""A bounded queue of messages for one stream; putting never waits."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

M = TypeVar("M")


class Overflow(Exception):
    """The queue is full: the other side does not read."""


class Outbox(Generic[M]):
    """Messages that wait for one stream, in order; one task reads them."""

    def __init__(self, limit: int) -> None:
        self._messages: deque[M] = deque()
        self._limit = limit
        self._ready = asyncio.Event()
        self._closed: str | None = None

    def put(self, message: M) -> None:
        """Queue a message.  Raises Overflow at the limit.  After ``close`` messages are dropped."""
        if self._closed is not None:
            return
        if len(self._messages) >= self._limit:
            raise Overflow
        self._messages.append(message)
        self._ready.set()

    def close(self, reason: str) -> None:
        """End the stream with ``reason`` once the queue is empty.  The first reason counts."""
        if self._closed is None:
            self._closed = reason
            self._ready.set()

    def clear(self) -> None:
        """Drop what waits."""
        self._messages.clear()

    async def get(self) -> M:
        """Return the next message, waiting for it.  Raises EOFError with the reason once closed and empty."""
        while not self._messages:
            if self._closed is not None:
                raise EOFError(self._closed)
            self._ready.clear()
            await self._ready.wait()
        return self._messages.popleft()
