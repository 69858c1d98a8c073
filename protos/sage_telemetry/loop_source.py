"""Reads the event loop's objects for threads that export them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from sage_telemetry.meter import Observed, SourceBusy

PATIENCE_S = 2.0
"""How long an export waits for the loop's turn; then it goes without what the loop would have told."""
FRESH_S = 0.25
"""For how long one reading serves everybody who asks: scrapers, however many, must not take the loop's time."""


class LoopSource:
    """What is read belongs to the loop, so the loop reads it: no lock on it, and no half-changed object.

    Made on the loop's own thread.  ``fresh_s``: FRESH_S where it is not given.
    """

    def __init__(
        self, read: Callable[[], Observed], *, patience_s: float = PATIENCE_S, fresh_s: float | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._read = read
        self._patience_s = patience_s
        self._fresh_s = fresh_s if fresh_s is not None else FRESH_S
        self._asking = threading.Lock()
        self._latest: Observed = {}
        self._fresh_until = float("-inf")  # monotonic

    def __call__(self) -> Observed:
        """What was read at most ``fresh_s`` ago, or is now.  Raises SourceBusy."""
        if threading.get_ident() == self._thread:
            return self._read()
        give_up_at = time.monotonic() + self._patience_s
        if not self._asking.acquire(timeout=self._patience_s):
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
            raise SourceBusy("the event loop is over") from None
        try:
            return answer.result(max(0.0, give_up_at - time.monotonic()))
        except TimeoutError:
            answer.cancel()
            raise self._busy() from None

    def _busy(self) -> SourceBusy:
        return SourceBusy(f"the event loop did not get to it within {self._patience_s:g} s")

    def _answer(self, answer: Future[Observed]) -> None:
        if not answer.set_running_or_notify_cancel():
            return  # nobody waits any more
        try:
            answer.set_result(self._read())
        except Exception as error:  # is raised where the answer is awaited
            answer.set_exception(error)
