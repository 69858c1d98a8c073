"""Measures how far the scheduler's event loop lags.

Two things depend on it.  While the loop lags, a client's tokens are coalesced: a message of several tokens costs as
much as a message of one.  And leases are extended by the lag, so that a busy scheduler does not lose its fleet.
"""

from __future__ import annotations

from collections.abc import Callable

from sage_common.clock import Clock

BUSY_LAG_S = 0.010
"""Lag in seconds from which the loop counts as busy."""

COALESCE_S = 0.030
"""Seconds between two messages to one client while the loop is busy."""

PROBE_S = 0.050
"""Seconds between two probes."""


class LoopLag:
    """Measures the lag of the event loop with a probe every ``PROBE_S``."""

    def __init__(self, clock: Clock, on_lag: Callable[[float], None] = lambda lag_s: None) -> None:
        """``on_lag`` is called with each measurement, in seconds."""
        self._clock = clock
        self._on_lag = on_lag
        self.lag_s = 0.0  # of the latest probe
        self.busy = False
        self.lost_s = 0.0  # all lag so far: time in which messages may have waited unread

    async def run(self) -> None:
        """Probe for ever."""
        while True:
            due = self._clock.now() + PROBE_S
            await self._clock.sleep(PROBE_S)
            self.observe(self._clock.now() - due)

    def observe(self, lag_s: float) -> None:
        """Take one measurement, in seconds."""
        self.lag_s = max(0.0, lag_s)
        self._on_lag(self.lag_s)
        self.busy = self.lag_s > BUSY_LAG_S
        if self.busy:
            self.lost_s += self.lag_s

    def now(self) -> float:
        """Return the time on the control clock, in seconds."""
        return self._clock.now()

    async def pause(self, since: float) -> None:
        """Sleep until ``COALESCE_S`` after ``since``."""
        await self._clock.sleep(max(0.0, since + COALESCE_S - self._clock.now()))
