"""Runs blocking calls, some of which may never return, without keeping the process from ending."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

Answer = TypeVar("Answer")

CALLS_LIMIT = 8
"""Calls that run at once.  One that hangs keeps its place."""


_NAME = "blocking-call"


def hanging() -> bool:
    """Return whether a call of this process has not returned.

    Then the interpreter must not end in its own way: a library's native code that goes on meanwhile crashes it.
    """
    return any(thread.name == _NAME for thread in threading.enumerate())


class BlockingCalls:
    """Runs each call in a daemon thread: neither ``asyncio.run`` nor the interpreter waits for it at the end."""

    def __init__(self, limit: int = CALLS_LIMIT) -> None:
        self._free = asyncio.Semaphore(limit)

    async def run(self, call: Callable[[], Answer], timeout_s: float) -> Answer:
        """Return what ``call`` returns, or raise what it raises.

        Raises TimeoutError after ``timeout_s`` seconds, the wait for a place among the running calls included.
        """
        async with asyncio.timeout(timeout_s):
            await self._free.acquire()
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[Answer] = loop.create_future()
            threading.Thread(target=self._work, args=(loop, call, answer), name=_NAME, daemon=True).start()
            return await answer

    def _work(self, loop: asyncio.AbstractEventLoop, call: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        settle: Callable[[], None]
        try:
            settle = partial(answer.set_result, call())
        except BaseException as error:
            settle = partial(answer.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(self._over, answer, settle)

    def _over(self, answer: asyncio.Future[Any], settle: Callable[[], None]) -> None:
        self._free.release()
        if not answer.done():  # else it was given up
            settle()
