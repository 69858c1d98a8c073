"""A histogram whose observations each stand for several equal values."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from math import inf

from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class WeightedHistogram(Collector):
    """A histogram without labels.  prometheus_client's counts one value a call, which takes a microsecond: an engine
    iteration that decodes 256 sequences would cost the event loop a quarter of a millisecond.

    One thread observes, any thread may collect.
    """

    def __init__(self, name: str, documentation: str, buckets: tuple[float, ...]) -> None:
        """``buckets``: upper bounds, ascending, without infinity."""
        self._name = name
        self._documentation = documentation
        self._bounds = buckets
        self._counts = [0] * (len(buckets) + 1)  # by bucket, not cumulated; the last one has no upper bound
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count ``value`` as if it had been observed ``times`` times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the one family of this histogram."""
        bounds = map(floatToGoString, (*self._bounds, inf))
        cumulated = list(zip(bounds, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=cumulated, sum_value=self._sum)
