"""Tries several ways at once and goes on with the first that works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar


class Closable(Protocol):
    """What a try returns when it works."""

    async def close(self) -> None:
        """Give it up."""
        ...


C = TypeVar("C", bound=Closable)


async def first_success(tries: Sequence[Callable[[], Awaitable[C | None]]], apart_s: float) -> C | None:
    """Return what the first try that works returns; None once none of them did.

    The tries begin in order: each when the one before it did not work, or ``apart_s`` seconds after it began.  Those
    that are not needed any more are cancelled, and what they returned is closed.  Raises what a try raises.
    """
    waiting = list(tries)
    running: set[asyncio.Future[C | None]] = set()
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(waiting.pop(0)()))
            limit_s = apart_s if waiting else None
            done, running = await asyncio.wait(running, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if (found := await _first(done)) is not None:
                return found
        return None
    finally:
        await _give_up(running)


async def _first(done: set[asyncio.Future[C | None]]) -> C | None:
    """Return what one of these returned, and close what the others did."""
    found: C | None = None
    for each in done:
        result = each.result()
        if found is None:
            found = result
        elif result is not None:
            await result.close()
    return found


async def _give_up(running: set[asyncio.Future[C | None]]) -> None:
    for each in running:
        each.cancel()
    for result in await asyncio.gather(*running, return_exceptions=True):
        if result is not None and not isinstance(result, BaseException):
            await result.close()
