"""Reads values that only the event loop may touch, for threads that export them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from sage_telemetry.meter import Observed, SourceBusy

TIMEOUT_S = 2.0
"""How long an export waits for the event loop; after that it leaves the loop's instruments out."""
FRESH_S = 0.25
"""How long one reading serves every export: many scrapers must not take more of the loop's time than one."""


class LoopSource:
    """A source for ``Meter.observe`` whose function runs on the event loop: no locks, and no half-changed objects."""

    def __init__(
        self, read: Callable[[], Observed], *, timeout_s: float = TIMEOUT_S, fresh_s: float | None = None
    ) -> None:
        """Have ``read`` called on the running loop, which must be the calling thread's.

        ``timeout_s``: seconds to wait for the loop.  ``fresh_s``: seconds for which a reading is kept; None: FRESH_S.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._read = read
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s if fresh_s is not None else FRESH_S
        self._asking = threading.Lock()
        self._latest: Observed = {}
        self._fresh_until = float("-inf")  # monotonic

    def __call__(self) -> Observed:
        """Return what was read at most ``fresh_s`` ago, or is read now.  Raises SourceBusy; any thread may call it."""
        if threading.get_ident() == self._thread:
            return self._read()
        give_up_at = time.monotonic() + self._timeout_s
        if not self._asking.acquire(timeout=self._timeout_s):
            raise self._busy()
        try:
            if time.monotonic() >= self._fresh_until:
                self._latest = self._ask(give_up_at)
                self._fresh_until = time.monotonic() + self._fresh_s
            return self._latest
        finally:
            self._asking.release()

    def _ask(self, give_up_at: float) -> Observed:
        answer: Future[Observed] = Future()
        try:
            self._loop.call_soon_threadsafe(self._answer, answer)
        except RuntimeError:
            raise SourceBusy("the event loop has ended") from None
        try:
            return answer.result(max(0.0, give_up_at - time.monotonic()))
        except TimeoutError:
            answer.cancel()
            raise self._busy() from None

    def _busy(self) -> SourceBusy:
        return SourceBusy(f"the event loop did not answer within {self._timeout_s:g} s")

    def _answer(self, answer: Future[Observed]) -> None:
        if not answer.set_running_or_notify_cancel():
            return  # the export gave up waiting
        try:
            answer.set_result(self._read())
        except Exception as error:  # raised again in the thread that waits for the answer
            answer.set_exception(error)
