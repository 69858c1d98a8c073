"""Runs work in a few threads, callers in turn, so that none takes them all for long."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class FairThreads:
    """Threads for work on behalf of callers.

    While all threads are busy, callers that wait get the next free one in turn, whatever each of them has asked for
    before.  Waiting ends when the caller's task is cancelled; work that runs keeps its thread until its end.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._free = threads
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # by caller, the next one first

    async def run(self, caller: str, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, or raise what it raises."""
        await self._take_thread(caller)
        loop = asyncio.get_running_loop()
        running = self._pool.submit(work)
        running.add_done_callback(lambda _: _on_loop(loop, self._release))
        return await asyncio.wrap_future(running)

    def close(self) -> None:
        """Stop the threads without waiting for them."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _take_thread(self, caller: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # it was this caller's turn
            raise

    def _release(self) -> None:
        """Give a thread that became free to the caller whose turn it is."""
        while self._waiting:
            caller, turns = self._waiting.popitem(last=False)
            while turns and turns[0].done():
                turns.popleft()  # its task was cancelled
            if not turns:
                continue
            turns.popleft().set_result(None)
            if turns:
                self._waiting[caller] = turns  # behind the others
            return
        self._free += 1


def _on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return  # the loop has ended, and with it everybody who waited
