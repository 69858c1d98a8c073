"""The results of the load under one policy."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sage_client import PolicySwitch, Priority
from sage_local.demo.outcome import Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassNumbers:
    """Figures of the burst's requests of one class.  Durations are seconds; None: nothing was measured."""

    priority: Priority
    requests: int
    wait_median_s: float | None
    wait_worst_s: float | None
    ttft_median_s: float | None
    slo_met: int  # requests that met every target
    slo_asked: int  # requests that had a target


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """The outcomes of all requests under one policy."""

    policy: str
    burst: tuple[Outcome, ...]
    trickle: tuple[Outcome, ...]
    switches: tuple[PolicySwitch, ...] = ()  # switches that ``adaptive`` made in this round, oldest first
    duration_s: float = 0.0

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Outcomes of burst and trickle."""
        return self.burst + self.trickle

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """Outcomes of the requests that failed."""
        return tuple(each for each in self.outcomes if each.error)

    def by_class(self) -> list[ClassNumbers]:
        """Return the burst's figures for each class with requests, the most urgent first."""
        return [_numbers(priority, _of(self.burst, priority)) for priority in Priority if _of(self.burst, priority)]

    def wait_median_s(self, priority: Priority) -> float | None:
        """Return the median queue time in seconds of a class in the burst."""
        return median(each.wait_s for each in _of(self.burst, priority))

    def slo_met(self) -> tuple[int, int]:
        """Return how many requests of the burst met every target, and how many had one."""
        asked = [each.slo_met for each in self.burst if each.slo_met is not None]
        return sum(asked), len(asked)

    def in_order_share(self) -> float | None:
        """Return the share of pairs of burst requests that were placed in order of acceptance."""
        starts = [
            (each.accepted_at, each.scheduled_at)
            for each in self.burst
            if each.accepted_at is not None and each.scheduled_at is not None
        ]
        starts.sort()
        pairs = [(a[1], b[1]) for i, a in enumerate(starts) for b in starts[i + 1 :]]
        return sum(first <= second for first, second in pairs) / len(pairs) if pairs else None


def per_instance(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Count requests by the instance of their last placement."""
    return dict(sorted(Counter(each.instance_id for each in outcomes if each.instance_id).items()))


def cost_per_1000_tokens(outcomes: Sequence[Outcome]) -> float | None:
    """Return the cost of 1,000 output tokens; None without tokens."""
    tokens = sum(each.tokens for each in outcomes)
    return 1000 * sum(each.cost for each in outcomes) / tokens if tokens else None


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of the known values; None if there is none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _of(outcomes: Iterable[Outcome], priority: Priority) -> list[Outcome]:
    return [each for each in outcomes if each.planned.priority is priority]


def _numbers(priority: Priority, outcomes: list[Outcome]) -> ClassNumbers:
    waits = [each.wait_s for each in outcomes if each.wait_s is not None]
    asked = [each.slo_met for each in outcomes if each.slo_met is not None]
    return ClassNumbers(
        priority=priority,
        requests=len(outcomes),
        wait_median_s=median(waits),
        wait_worst_s=max(waits, default=None),
        ttft_median_s=median(each.ttft_s for each in outcomes),
        slo_met=sum(asked),
        slo_asked=len(asked),
    )
