"""How long executors have been silent, and how much of that counts."""

from __future__ import annotations

from dataclasses import dataclass

from sage_common.clock import Clock
from scheduler_svc.control.timing.loop_lag import LoopLag


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """What a session's lease is counted from.  Times are seconds on the control clock."""

    began_at: float
    heard_at: float  # when a message of the executor was read last
    lag_then_s: float  # all event-loop lag up to ``heard_at``


class Leases:
    """Begins and renews leases, and measures silence: the time by which this process reads late does not count."""

    def __init__(self, clock: Clock, loop_lag: LoopLag) -> None:
        self._clock = clock
        self._loop_lag = loop_lag

    def begin(self) -> Lease:
        """Return the lease of a session that begins now."""
        now = self._clock.now()
        return Lease(began_at=now, heard_at=now, lag_then_s=self._loop_lag.lost_s)

    def renew(self, lease: Lease) -> None:
        """Renew a lease, because a message of the executor arrived."""
        lease.heard_at = self._clock.now()
        lease.lag_then_s = self._loop_lag.lost_s

    def silence_s(self, lease: Lease) -> float:
        """Return for how many seconds the executor has been silent."""
        return self._clock.now() - lease.heard_at - (self._loop_lag.lost_s - lease.lag_then_s)

    def age_s(self, lease: Lease) -> float:
        """Return how many seconds ago the session began."""
        return self._clock.now() - lease.began_at
