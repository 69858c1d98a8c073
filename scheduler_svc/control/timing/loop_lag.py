"""How far the scheduler's event loop lags behind.

While it lags, clients' tokens are coalesced (a message of several tokens costs what a message of one costs), and leases
are extended by the lag (a busy scheduler must not declare its fleet dead).
"""

from __future__ import annotations

from sage_common.clock import Clock
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer

BUSY_LAG_S = 0.010  # lag above which the loop counts as busy
COALESCE_S = 0.030  # seconds between two messages to one client while it is
PROBE_S = 0.050  # seconds between two measurements


class LoopLag:
    """Measures the event loop's lag: by how much a sleep ends late."""

    def __init__(self, clock: Clock, observer: Observer = NULL_OBSERVER) -> None:
        self._clock = clock
        self._observer = observer
        self.lag_s = 0.0  # of the latest probe
        self.busy = False
        self.lost_s = 0.0  # all lag so far: time in which messages may have waited unread

    async def run(self) -> None:
        """Measure every ``PROBE_S``; never returns."""
        while True:
            due = self._clock.now() + PROBE_S
            await self._clock.sleep(PROBE_S)
            self.observe(self._clock.now() - due)

    def observe(self, lag_s: float) -> None:
        """Record one measurement, in seconds."""
        self.lag_s = max(0.0, lag_s)
        self._observer.lagged(self.lag_s)
        self.busy = self.lag_s > BUSY_LAG_S
        if self.busy:
            self.lost_s += self.lag_s

    def now(self) -> float:
        """Return the clock's time, in seconds."""
        return self._clock.now()

    async def pause(self, since: float) -> None:
        """Wait until ``COALESCE_S`` after ``since``."""
        await self._clock.sleep(max(0.0, since + COALESCE_S - self._clock.now()))
