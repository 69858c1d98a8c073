"""Ends the stream of a client that stays connected and takes no message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self

from scheduler_svc.domain.errors import LimitReached

TAKE_LIMIT_S = 30.0
"""How long one message may wait for its client."""

CHECKS = 4  # within the limit, so a client may have a quarter more than it


class Writing:
    """Writes one stream's messages while its context lasts, and notes since when one waits.

    No status can be sent behind a message that waits, so the stream itself ends when its client reads on or leaves.
    What the stream holds, such as the output of an ended request, is let go before that, by ``on_stall``.
    """

    __slots__ = ("_limit_s", "_loop", "_on_stall", "_since", "_stalled", "_timer", "_write")

    def __init__(
        self, write: Callable[[Any], Awaitable[None]], on_stall: Callable[[], None], limit_s: float | None = None
    ) -> None:
        """``on_stall``: called once if the client takes no message.  ``limit_s``: None for TAKE_LIMIT_S."""
        self._write = write
        self._on_stall = on_stall
        self._limit_s = limit_s = TAKE_LIMIT_S if limit_s is None else limit_s
        self._loop = asyncio.get_running_loop()
        self._since = 0.0  # on the loop's clock; 0: no message waits
        self._stalled = False
        # One timer looks at all messages: a timer for each would cost more than the message.
        self._timer = self._loop.call_later(limit_s / CHECKS, self._look)

    async def __call__(self, message: Any) -> None:
        """Write a message.  Raises LimitReached if it waited for its client longer than the limit."""
        self._since = self._loop.time()
        await self._write(message)
        self._since = 0.0
        if self._stalled:
            what = "seconds for a client to take a message"
            raise LimitReached(what, self._limit_s, f"the client took no message for {self._limit_s:g} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._since and self._loop.time() - self._since >= self._limit_s:
            self._stalled = True
            self._on_stall()
        else:
            self._timer = self._loop.call_later(self._limit_s / CHECKS, self._look)
