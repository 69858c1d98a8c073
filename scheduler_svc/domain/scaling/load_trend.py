"""The load of a model over the last minutes, and where it goes."""

from __future__ import annotations

from collections import deque
from math import fsum

_MOST_SAMPLES = 256


class LoadTrend:
    """Fits a line to the load of the last ``span_s`` seconds."""

    __slots__ = ("_samples", "_span_s")

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._samples: deque[tuple[float, float]] = deque(maxlen=_MOST_SAMPLES)

    def add(self, load: float, now: float) -> None:
        """Take the load of now, in instances.  What comes sooner than all that fit the span replaces the last one."""
        if len(self._samples) > 1 and now - self._samples[-2][0] < 2 * self._span_s / _MOST_SAMPLES:
            self._samples.pop()
        self._samples.append((now, load))
        while self._samples[0][0] < now - self._span_s:
            self._samples.popleft()

    def forecast(self, ahead_s: float) -> float:
        """Predict the load in ``ahead_s`` seconds: never below that of now, and never more than twice that.

        A fall is no forecast: what is there is removed by delays, and a load that comes back would be missed.
        """
        if not self._samples:
            return 0.0
        now = self._samples[-1][1]
        return min(2 * now, max(now, now + self._slope() * ahead_s))

    def _slope(self) -> float:
        """Return the slope of the line of least squares, in instances per second; 0 until half the span was seen."""
        first, last = self._samples[0][0], self._samples[-1][0]
        if last - first < self._span_s / 2:
            return 0.0
        n = len(self._samples)
        mean_at = fsum(at for at, _ in self._samples) / n
        mean = fsum(load for _, load in self._samples) / n
        spread = fsum((at - mean_at) ** 2 for at, _ in self._samples)
        return fsum((at - mean_at) * (load - mean) for at, load in self._samples) / spread
