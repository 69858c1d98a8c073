"""The time in which this scheduler leads."""

from __future__ import annotations

import asyncio
import math

from sage_common.clock import Clock, Timer
from scheduler_svc.domain.errors import NotLeader

RETRY_S = 0.25
"""After how many seconds a caller is asked to look for the next leader."""


class Term:
    """Counts one lease and its renewals.  Once over it stays over, whatever a late answer says.

    ``check`` comes before everything that is written to executors and readers.
    """

    __slots__ = ("_clock", "_over", "_timer", "_until", "_why", "epoch", "lease_s", "released")

    def __init__(self, clock: Clock, *, epoch: int, lease_s: float, until: float) -> None:
        """``lease_s``: of the lease, as others are told.  ``until``: when it ends if it is not renewed."""
        self.epoch = epoch
        self.lease_s = lease_s
        self.released = False  # whether the lease was given back
        self._clock = clock
        self._until = until
        self._why = ""
        self._over = asyncio.Event()
        self._timer: Timer | None = clock.call_at(until, self._lapse)

    @property
    def over(self) -> bool:
        """Whether this scheduler leads no more; true from the lease's end on, before anybody is told."""
        return self._clock.now() >= self._until

    @property
    def left_s(self) -> float:
        """Seconds until the lease ends; 0 once it has."""
        return max(self._until - self._clock.now(), 0.0)

    def check(self) -> None:
        """Raise NotLeader once the term is over."""
        if self._clock.now() >= self._until:
            self._lapse()
            raise self.error()

    def error(self) -> NotLeader:
        """Return what a caller is told once the term is over."""
        return NotLeader(RETRY_S, why=self._why)

    def renewed(self, until: float) -> None:
        """Count on from a renewal, unless the term is over."""
        if not self.over and until > self._until:
            self._until = until
            self._restart_timer()

    def end(self, why: str) -> None:
        """End the term now."""
        if not self._over.is_set():
            self._until = -math.inf
            self._why = why
            self._over.set()
            self._cancel_timer()

    async def wait_over(self) -> str:
        """Wait until the term is over; return why."""
        await self._over.wait()
        return self._why

    def _lapse(self) -> None:
        self.end("its lease ended: the database did not renew it in time")

    def _restart_timer(self) -> None:
        self._cancel_timer()
        self._timer = self._clock.call_at(self._until, self._lapse)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
