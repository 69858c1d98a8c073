"""Whether an engine that holds work makes progress."""

from __future__ import annotations

from scheduler_svc.domain.load_report import LoadReport


class ProgressWatch:
    """Remembers when an engine last did an iteration or last had nothing to do.

    Times are seconds on the scheduler's clock.
    """

    __slots__ = ("busy", "iterations", "since", "stalled_at_iteration", "stalls")

    def __init__(self, now: float) -> None:
        self.since = now
        self.iterations = 0
        self.busy = False
        self.stalled_at_iteration = 0
        self.stalls = 0  # in a row, without an iteration between them

    def restart(self, now: float) -> None:
        """Start the stall limit again."""
        self.since = now

    def pause(self, seconds: float) -> None:
        """Leave out a time in which no heartbeat arrived."""
        self.since += seconds

    def observe(self, load: LoadReport, now: float, *, seen_reservations: int) -> None:
        """Take a heartbeat.  ``seen_reservations``: reservations that its ``last_assign`` covers."""
        busy = load.unfinished > 0 or seen_reservations > 0
        if load.iterations != self.iterations or not busy or not self.busy:
            self.since = now
        if load.iterations > self.stalled_at_iteration:
            self.stalls = 0
        self.iterations = load.iterations
        self.busy = busy

    def stall(self) -> None:
        """Count a stall at the iteration reported last."""
        self.stalled_at_iteration = self.iterations
        self.stalls += 1
