"""Drains this executor, and leaves in order.

Nothing new is accepted, running attempts finish, KV kept for others is fetched, then Goodbye is said.  Decode legs are
accepted until the end: their capacity was reserved when their prefill began elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from executor_svc.runtime.attempts.attempt_table import AttemptTable
from executor_svc.runtime.messages.outputs import EndCause
from executor_svc.runtime.session.session import Session

log = logging.getLogger(__name__)

ACKNOWLEDGE_TIMEOUT_S = 2.0  # for the ends of the last attempts to be acknowledged
LOOK_S = 0.02  # between two looks at the engine's KV: nothing announces that it was fetched


class Drain:
    """A drain: ordered by the scheduler, which may lift it, or begun by this executor, which may not."""

    def __init__(
        self, *, attempts: AttemptTable, session: Session, timeout_s: float, kv_used_tokens: Callable[[], int]
    ) -> None:
        """Prepare a drain.  ``timeout_s``: for running attempts to end.  ``kv_used_tokens``: the engine's own count."""
        self._attempts = attempts
        self._session = session
        self._timeout_s = timeout_s
        self._kv_used_tokens = kv_used_tokens
        self._reported = False
        self.leaving = False

    # --- ordered by the scheduler -----------------------------------------------------------------------------------

    def ordered(self, resume: bool) -> None:
        """Obey the scheduler's order to drain, or to ``resume``.  Ignored once this executor is leaving."""
        if self.leaving:
            return
        log.info("the scheduler %s", "lifted the drain" if resume else "ordered a drain")
        self._attempts.draining = not resume
        self._reported = False
        self.check()

    def session_changed(self) -> None:
        """Lift the scheduler's drain: an order holds for one session, and is repeated if still wanted."""
        self._attempts.draining = self.leaving
        self._reported = False
        self.check()

    def check(self) -> None:
        """Report once that nothing is left in flight.  Call whenever an attempt started or ended."""
        if not self._attempts.draining or self._reported or not self._session.connected:
            return
        if not self._attempts.running and not self._attempts.held:
            self._reported = True
            self._session.control.report_drained()

    # --- this executor's own ----------------------------------------------------------------------------------------

    async def leave(self, reason: str) -> None:
        """Drain, end what still runs after the time-out, say Goodbye.

        KV that is kept for others is waited for within the same time, at most until its lease ends.
        """
        self.leaving = self._attempts.draining = True
        self._session.control.request_drain(reason)
        self.check()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._finished()
        except TimeoutError:
            if self._keeps_kv():
                log.warning("KV kept for other engines was not fetched in %g s; it is dropped", self._timeout_s)
            if count := self._attempts.running:
                log.warning("%d attempts did not end in %g s; they are cancelled", count, self._timeout_s)
            self._attempts.end_all(EndCause.CANCELLED, f"its executor left: {reason}")
        await self.settle()
        await self._session.leave(reason)

    async def _finished(self) -> None:
        await self._attempts.none_running()
        while self._keeps_kv():
            await asyncio.sleep(LOOK_S)
            await self._attempts.none_running()

    def _keeps_kv(self) -> bool:
        """Whether a prompt's KV is still kept for another engine, as far as its use of KV tells."""
        leased = asyncio.get_running_loop().time() < self._attempts.kv_kept_until
        return leased and self._kv_used_tokens() > 0

    async def settle(self) -> None:
        """Wait a moment for the ends of the last attempts to be acknowledged."""
        try:
            async with asyncio.timeout(ACKNOWLEDGE_TIMEOUT_S):
                await self._attempts.none_running()
                if self._session.connected:
                    await self._attempts.none_held()
        except TimeoutError:
            log.warning("the ends of %d attempts were not acknowledged in time", len(self._attempts.held))
