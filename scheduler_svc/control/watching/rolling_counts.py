"""Counts of what happened since the start and in the last minutes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from scheduler_svc.control.watching.latencies import Latencies
from scheduler_svc.domain.request import Priority, RequestState

BUCKET_S = 5.0
"""Seconds of one bucket."""

WINDOW_S = 300.0
"""Seconds for which buckets are kept."""


@dataclass(slots=True, kw_only=True)
class Counts:
    """Numbers of things that happened in a stretch of time."""

    accepted: int = 0  # requests
    refused: int = 0  # requests that were never accepted
    ended: Counter[RequestState] = field(default_factory=Counter)  # requests
    failovers: int = 0  # times that a request was requeued
    output_tokens: int = 0  # of the requests that ended
    met: Counter[Priority] = field(default_factory=Counter)  # requests that met all their targets
    missed: Counter[Priority] = field(default_factory=Counter)
    first_token: Latencies = field(default_factory=Latencies)  # from acceptance, of requests that ended
    per_token: Latencies = field(default_factory=Latencies)  # after the first, of requests that ended
    total: Latencies = field(default_factory=Latencies)  # from acceptance to the end, of those with a token

    def add(self, other: Counts) -> None:
        """Add the numbers of ``other`` to these."""
        self.accepted += other.accepted
        self.refused += other.refused
        self.ended.update(other.ended)
        self.failovers += other.failovers
        self.output_tokens += other.output_tokens
        self.met.update(other.met)
        self.missed.update(other.missed)
        self.first_token.add(other.first_token)
        self.per_token.add(other.per_token)
        self.total.add(other.total)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Counts of a stretch of time that ends now."""

    span_s: float
    counts: Counts


class RollingCounts:
    """Counts in buckets of ``BUCKET_S``; those older than ``WINDOW_S`` stay in the total only."""

    def __init__(self, now: float) -> None:
        self._started_at = now
        self._total = Counts()
        self._buckets: deque[tuple[int, Counts]] = deque([(0, Counts())], maxlen=round(WINDOW_S / BUCKET_S) + 1)

    def open(self, now: float) -> Iterable[Counts]:
        """Return all counts to which an event at ``now`` must be added."""
        number = self._number(now)
        if self._buckets[-1][0] != number:
            self._buckets.append((number, Counts()))
        return self._total, self._buckets[-1][1]

    def last(self, span_s: float, now: float) -> Stretch:
        """Return the counts of the last ``span_s`` seconds, rounded up to a bucket, but none from before the start."""
        first = self._number(max(self._started_at, now - min(span_s, WINDOW_S)))
        counts = Counts()
        for number, bucket in self._buckets:
            if number >= first:
                counts.add(bucket)
        return Stretch(span_s=now - self._started_at - first * BUCKET_S, counts=counts)

    def history(self, now: float) -> list[Counts]:
        """Return the counts of each bucket of the window that is over, oldest first; do not change them."""
        over = self._number(now)
        there = dict(self._buckets)
        return [there.get(number) or Counts() for number in range(max(0, over - round(WINDOW_S / BUCKET_S)), over)]

    def since_start(self, now: float) -> Stretch:
        """Return the counts since the start."""
        counts = Counts()
        counts.add(self._total)
        return Stretch(span_s=now - self._started_at, counts=counts)

    def _number(self, now: float) -> int:
        return int((now - self._started_at) // BUCKET_S)
