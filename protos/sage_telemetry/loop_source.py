"""Reads the event loop's objects for threads that export them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

from sage_telemetry.meter import Observed, SourceBusy

PATIENCE_S = 2.0
"""How long an export waits for the loop's turn; then it goes without what the loop would have told."""


class LoopSource:
    """What is read belongs to the loop, so the loop reads it: no lock, and no half-changed object.

    Made on the loop's own thread.
    """

    def __init__(self, read: Callable[[], Observed], *, patience_s: float = PATIENCE_S) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._read = read
        self._patience_s = patience_s

    def __call__(self) -> Observed:
        """Raises SourceBusy."""
        if threading.get_ident() == self._thread:
            return self._read()
        answer: Future[Observed] = Future()
        try:
            self._loop.call_soon_threadsafe(self._answer, answer)
            return answer.result(self._patience_s)
        except TimeoutError:
            raise SourceBusy(f"the event loop did not get to it within {self._patience_s:g} s") from None
        except RuntimeError:
            raise SourceBusy("the event loop is over") from None

    def _answer(self, answer: Future[Observed]) -> None:
        try:
            answer.set_result(self._read())
        except Exception as error:  # is raised where the answer is awaited
            answer.set_exception(error)
