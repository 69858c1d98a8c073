"""One policy's turn, and its numbers."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sage_client import PolicySwitch, Priority
from sage_local.demo.outcome import Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassNumbers:
    """Of the burst's requests of one class.  Seconds; None where nothing was measured."""

    priority: Priority
    requests: int
    wait_median_s: float | None
    wait_worst_s: float | None
    ttft_median_s: float | None
    slo_met: int
    slo_asked: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """A policy and what happened under it."""

    policy: str
    burst: tuple[Outcome, ...]
    trickle: tuple[Outcome, ...]
    switches: tuple[PolicySwitch, ...] = ()  # those that ``adaptive`` made in this round, oldest first
    duration_s: float = 0.0

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return self.burst + self.trickle

    @property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(each for each in self.outcomes if each.error)

    def by_class(self) -> list[ClassNumbers]:
        return [_numbers(priority, _of(self.burst, priority)) for priority in Priority if _of(self.burst, priority)]

    def wait_median_s(self, priority: Priority) -> float | None:
        return median(each.wait_s for each in _of(self.burst, priority))

    def slo_met(self) -> tuple[int, int]:
        """Of the burst: met, asked."""
        asked = [each.slo_met for each in self.burst if each.slo_met is not None]
        return sum(asked), len(asked)

    def in_order_share(self) -> float | None:
        """Of pairs in the burst: the share that was placed in the order in which it was accepted."""
        starts = [
            (each.accepted_at, each.scheduled_at)
            for each in self.burst
            if each.accepted_at is not None and each.scheduled_at is not None
        ]
        starts.sort()
        pairs = [(a[1], b[1]) for i, a in enumerate(starts) for b in starts[i + 1 :]]
        return sum(first <= second for first, second in pairs) / len(pairs) if pairs else None


def per_instance(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Requests by the instance they ran on last."""
    return dict(sorted(Counter(each.instance_id for each in outcomes if each.instance_id).items()))


def cost_per_1000_tokens(outcomes: Sequence[Outcome]) -> float | None:
    tokens = sum(each.tokens for each in outcomes)
    return 1000 * sum(each.cost for each in outcomes) / tokens if tokens else None


def median(values: Iterable[float | None]) -> float | None:
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
