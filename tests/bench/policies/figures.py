"""The figures of one run that the benchmark keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from statistics import fmean

from sage_simulator.outcome import Outcome
from sage_simulator.report import Quantiles, summarize
from sage_simulator.simulation import SimulationResult
from scheduler_svc.domain.request import Priority


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What one run gave.  Times in seconds, costs in the currency of the instances' price."""

    requests: int
    in_target_share: float
    class_in_target_spread: float  # largest share in target of a class less the smallest
    ttft_mean_s: float | None
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    critical_ttft_p99_s: float | None  # None without a CRITICAL request
    background_ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p90_s: float | None
    queue_wait_p99_s: float | None
    cost_per_million_tokens: float | None  # from each instance's first to its last use
    fleet_cost_per_million_tokens: float | None  # of all instances, over the whole run
    placed_imbalance: float  # most requests on one instance by the mean
    busy_imbalance: float  # largest utilisation by the mean
    overtaken: int  # requests that were placed after one that came later
    switches_per_minute: float  # of the policy that is followed
    span_s: float

    @classmethod
    def of(cls, result: SimulationResult) -> Figures:
        """Take the figures of a run."""
        summary = summarize(result)
        tokens = summary.output_tokens
        by_class = {p: [o for o in result.outcomes if o.request.priority is p] for p in Priority}
        return cls(
            requests=summary.requests,
            in_target_share=summary.in_target_share,
            class_in_target_spread=_spread([_in_target(each) for each in by_class.values() if each]),
            ttft_mean_s=_mean([o.ttft_s for o in result.outcomes if o.ttft_s is not None]),
            ttft_p50_s=summary.ttft.p50_s,
            ttft_p99_s=summary.ttft.p99_s,
            critical_ttft_p99_s=_ttft_p99_s(by_class[Priority.CRITICAL]),
            background_ttft_p99_s=_ttft_p99_s(by_class[Priority.BACKGROUND]),
            tpot_p50_s=summary.tpot.p50_s,
            tpot_p90_s=summary.tpot.p90_s,
            queue_wait_p99_s=summary.queue_wait.p99_s,
            cost_per_million_tokens=summary.cost_per_million_tokens,
            fleet_cost_per_million_tokens=summary.fleet_cost * 1e6 / tokens if tokens else None,
            placed_imbalance=_imbalance([each.requests for each in summary.instances]),
            busy_imbalance=_imbalance([each.utilisation for each in summary.instances]),
            overtaken=_overtaken(result.outcomes),
            switches_per_minute=len(result.switches) * 60 / summary.span_s,
            span_s=summary.span_s,
        )


def _ttft_p99_s(outcomes: Sequence[Outcome]) -> float | None:
    return Quantiles.of(each.ttft_s for each in outcomes).p99_s


def _in_target(outcomes: Sequence[Outcome]) -> float:
    return fmean(each.in_target for each in outcomes)


def _spread(values: Sequence[float]) -> float:
    return max(values, default=0.0) - min(values, default=0.0)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _imbalance(values: Sequence[float]) -> float:
    total = sum(values)
    return max(values) * len(values) / total if total else 1.0


def _overtaken(outcomes: Sequence[Outcome]) -> int:
    """Count requests that were placed later than one that came after them; one moment of placement is no order."""
    placed = sorted((o.placed_at, o.request.arrival_s) for o in outcomes if o.placed_at is not None)
    overtaken, latest_arrival = 0, float("-inf")
    for _, together in groupby(placed, key=itemgetter(0)):
        arrivals = [arrival_s for _, arrival_s in together]
        overtaken += sum(arrival_s < latest_arrival for arrival_s in arrivals)
        latest_arrival = max(latest_arrival, *arrivals)
    return overtaken
