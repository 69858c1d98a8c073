"""How long clients waited for a token, in all and over each fault."""

from __future__ import annotations

import itertools
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds: half of all are below ``p50``, all but one in a hundred below ``p99``."""

    p50: float
    p99: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the spread of values; all 0 where there are none."""
        found = sorted(values)
        if not found:
            return cls(0.0, 0.0, 0.0, 0)
        last = len(found) - 1
        return cls(found[last // 2], found[min(last, int(0.99 * len(found)))], found[-1], len(found))

    def __str__(self) -> str:
        return f"p50 {self.p50:.2f} s, p99 {self.p99:.2f} s, max {self.most:.2f} s of {self.count}"


@dataclass
class Gaps:
    """The times at which each stream got tokens, and at which each fault struck; the event loop's clock."""

    streams: list[Sequence[float]] = field(default_factory=list)
    faults: list[tuple[str, float]] = field(default_factory=list)

    def stream(self) -> array[float]:
        """Return where to write down the times of one stream."""
        times: array[float] = array("d")
        self.streams.append(times)
        return times

    def struck(self, kind: str, at: float) -> None:
        self.faults.append((kind, at))

    def largest(self) -> list[float]:
        """The largest gap of each stream that had two tokens."""
        return [max(b - a for a, b in itertools.pairwise(s)) for s in self.streams if len(s) > 1]

    def over_faults(self) -> dict[str, list[float]]:
        """By kind of fault: the gap that it fell into, of each stream; a stream that ended with it has none."""
        found: defaultdict[str, list[float]] = defaultdict(list)
        for kind, at in self.faults:
            for times in self.streams:
                gap = _gap_at(times, at)
                if gap is not None:
                    found[kind].append(gap)
        return dict(sorted(found.items()))


def _gap_at(times: Sequence[float], at: float) -> float | None:
    if not times or not times[0] <= at < times[-1]:
        return None
    low, high = 0, len(times) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if times[middle] <= at else (low, middle)
    return times[high] - times[low]
