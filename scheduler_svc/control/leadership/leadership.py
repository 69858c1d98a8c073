"""Claims the lease of the one that leads, renews it, and gives it up."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sage_common.clock import Clock
from scheduler_svc.control.leadership.leader_store import Leader, LeaderStore, StoreFailed, Won
from scheduler_svc.control.leadership.term import Term

log = logging.getLogger(__name__)

RENEWALS = 4
"""How often a lease is renewed before it would end."""

LOOKS = 8
"""How often within a lease a standby looks whether it has ended."""

AFTER_FAILURE_S = 0.1
"""Pause before the store is asked again that did not answer."""

MARGIN = 0.05
"""The share of a lease by which its holder stops early, for clocks that run at different speeds."""


class Leadership:
    """Asks the store for the lease, again and again, until it is this scheduler's; then keeps it.

    Attributes:
        leader: who leads, as the store said last; None: nobody, or it is not known.
        trouble: what is wrong with the store, in words; empty if it answered last time.
    """

    def __init__(self, store: LeaderStore, clock: Clock, lease_s: float) -> None:
        self.leader: Leader | None = None
        self.trouble = ""
        self.lease_s = lease_s
        self._store = store
        self._clock = clock
        self._seen_at = clock.now()  # when ``leader`` was told

    @property
    def lease_left_s(self) -> float:
        """Seconds until the lease of ``leader`` ends, if it is not renewed; 0 if it is over."""
        if self.leader is None:
            return 0.0
        return max(self.leader.lease_left_s - (self._clock.now() - self._seen_at), 0.0)

    async def campaign(self) -> tuple[Term, Won]:
        """Wait until this scheduler leads."""
        while True:
            asked_at = self._clock.now()
            try:
                found = await self._store.claim(self.lease_s)
            except StoreFailed as failure:
                self._failed(failure)
                await self._clock.sleep(self.lease_s / LOOKS)
                continue
            self._answered()
            if isinstance(found, Won):
                until = asked_at + self.lease_s * (1 - MARGIN)
                return Term(self._clock, epoch=found.epoch, lease_s=self.lease_s, until=until), found
            self._note(found)
            await self._clock.sleep(min(self.lease_s / LOOKS, max(found.lease_left_s, 0.0) + AFTER_FAILURE_S))

    async def hold(self, term: Term) -> None:
        """Renew the lease until the term is over."""
        pause_s = self.lease_s / RENEWALS
        while True:
            await self._clock.sleep(pause_s)
            asked_at = self._clock.now()
            if term.over:
                return
            try:
                renewed = await self._store.renew(term.epoch, self.lease_s)
            except StoreFailed as failure:
                self._failed(failure)
                pause_s = AFTER_FAILURE_S
                continue
            self._answered()
            pause_s = self.lease_s / RENEWALS
            if not renewed:
                term.end("its lease is another scheduler's, or ended")
                return
            term.renewed(asked_at + self.lease_s * (1 - MARGIN))

    async def release(self, term: Term) -> None:
        """Let another scheduler lead at once.  Call when nothing of this one's is written any more."""
        try:
            await self._store.release(term.epoch)
        except StoreFailed as failure:
            log.warning("the lease was not given back, and ends by itself: %s", failure)

    def _note(self, leader: Leader) -> None:
        known = self.leader
        self.leader = leader
        self._seen_at = self._clock.now()
        if known is None or known.epoch != leader.epoch:
            log.info("%s leads, epoch %d; this scheduler stands by", ", ".join(leader.addresses), leader.epoch)

    def _failed(self, failure: StoreFailed) -> None:
        why = str(failure)
        self._say(log.warning if why != self.trouble else log.debug, why)
        self.trouble = why

    def _say(self, log_it: Callable[..., None], why: str) -> None:
        log_it("leadership: the database does not answer as it should: %s", why)

    def _answered(self) -> None:
        if self.trouble:
            log.info("leadership: the database answers again")
            self.trouble = ""
