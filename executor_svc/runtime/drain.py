"""Drains this executor, and ends its session in order.

A drained executor accepts no new attempts.  Before it leaves, running attempts finish, KV kept for other engines is
fetched, and Goodbye is sent.  Decode legs are accepted until the end, because their capacity was reserved when their
prefill began elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from executor_svc.runtime.attempts.attempt_table import AttemptTable
from executor_svc.runtime.messages.outputs import EndCause
from executor_svc.runtime.session.session import Session

log = logging.getLogger(__name__)

ACKNOWLEDGE_TIMEOUT_S = 2.0  # wait for the scheduler to acknowledge the ends of the last attempts
KV_POLL_S = 0.02  # between two readings of the KV in use: no event says that it was fetched


class Drain:
    """A drain of this executor.

    The scheduler can order a drain and lift it again.  A drain that this executor began itself cannot be lifted.
    """

    def __init__(
        self, *, attempts: AttemptTable, session: Session, timeout_s: float, kv_used_tokens: Callable[[], int]
    ) -> None:
        """Prepare a drain.

        ``timeout_s``: how long running attempts may take to end.  ``kv_used_tokens``: reads the KV tokens in use from
        the engine.
        """
        self._attempts = attempts
        self._session = session
        self._timeout_s = timeout_s
        self._kv_used_tokens = kv_used_tokens
        self._reported = False
        self.leaving = False

    # --- ordered by the scheduler -----------------------------------------------------------------------------------

    def ordered(self, resume: bool) -> None:
        """Carry out the scheduler's order to drain, or to ``resume``.  Ignored once this executor is leaving."""
        if self.leaving:
            return
        log.info("the scheduler %s", "lifted the drain" if resume else "ordered a drain")
        self._attempts.draining = not resume
        self._reported = False
        self.check()

    def session_changed(self) -> None:
        """Lift a drain that the scheduler ordered: the order ends with its session, and a scheduler can repeat it."""
        self._attempts.draining = self.leaving
        self._reported = False
        self.check()

    def check(self) -> None:
        """Report Drained, once per drain, when no attempt runs or is held.

        Call whenever an attempt started or ended.
        """
        if not self._attempts.draining or self._reported or not self._session.connected:
            return
        if not self._attempts.running and not self._attempts.held:
            self._reported = True
            self._session.control.report_drained()

    # --- this executor's own ----------------------------------------------------------------------------------------

    async def leave(self, reason: str) -> None:
        """Drain, cancel the attempts that still run after ``timeout_s``, then send Goodbye.

        The same time-out covers the wait for KV that is kept for other engines, which ends with its lease at the
        latest.
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
            await asyncio.sleep(KV_POLL_S)
            await self._attempts.none_running()

    def _keeps_kv(self) -> bool:
        """Whether the engine still keeps KV for another engine: a KV lease runs and the engine reports KV in use."""
        leased = asyncio.get_running_loop().time() < self._attempts.kv_kept_until
        return leased and self._kv_used_tokens() > 0

    async def settle(self) -> None:
        """Wait at most ACKNOWLEDGE_TIMEOUT_S for the scheduler to acknowledge the ends of the last attempts."""
        try:
            async with asyncio.timeout(ACKNOWLEDGE_TIMEOUT_S):
                await self._attempts.none_running()
                if self._session.connected:
                    await self._attempts.none_held()
        except TimeoutError:
            log.warning("the ends of %d attempts were not acknowledged in time", len(self._attempts.held))
