"""Leaving in order: nothing new, what runs is finished, then the departure is announced."""

from __future__ import annotations

import asyncio
import logging

from executor_svc.runtime.assignments import Assignments
from executor_svc.runtime.messages import EndCause
from executor_svc.runtime.session import Session

log = logging.getLogger(__name__)

ACKNOWLEDGE_TIMEOUT_S = 2.0  # for the ends of the last attempts to be acknowledged


class Drain:
    """A drain is ordered by the scheduler and can be taken back, or it is this executor's own and cannot."""

    def __init__(self, *, assignments: Assignments, session: Session, timeout_s: float) -> None:
        self._assignments = assignments
        self._session = session
        self._timeout_s = timeout_s
        self._reported = False
        self.leaving = False

    # --- ordered by the scheduler -----------------------------------------------------------------------------------

    def ordered(self, resume: bool) -> None:
        if self.leaving:
            return
        log.info("the scheduler %s", "took the drain back" if resume else "ordered a drain")
        self._assignments.draining = not resume
        self._reported = False
        self.check()

    def session_changed(self) -> None:
        """An order binds for one session; a scheduler that still wants it gives it again."""
        self._assignments.draining = self.leaving
        self._reported = False
        self.check()

    def check(self) -> None:
        """Something ended or came: say once when nothing is in flight any more."""
        if not self._assignments.draining or self._reported or not self._session.connected:
            return
        if not self._assignments.running and not self._assignments.held:
            self._reported = True
            self._session.control.report_drained()

    # --- this executor's own ----------------------------------------------------------------------------------------

    async def leave(self, reason: str) -> None:
        """Ask for the drain, finish what runs for up to the time-out, hand the rest back, say Goodbye."""
        self.leaving = self._assignments.draining = True
        self._session.control.request_drain(reason)
        self.check()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._assignments.none_running()
        except TimeoutError:
            count = self._assignments.running
            log.warning("%d attempts did not end in %g s; they are given back", count, self._timeout_s)
            self._assignments.fail_all(EndCause.CANCELLED, f"its executor left: {reason}")
        await self.settle()
        await self._session.leave(reason)

    async def settle(self) -> None:
        """Give the ends of the last attempts a moment to be acknowledged."""
        try:
            async with asyncio.timeout(ACKNOWLEDGE_TIMEOUT_S):
                await self._assignments.none_running()
                if self._session.connected:
                    await self._assignments.none_held()
        except TimeoutError:
            log.warning("%d attempts are not acknowledged to the end", len(self._assignments.held))
