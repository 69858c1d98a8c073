"""Sums a simulation up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sage_simulator.executor_model import ExecutorModel
from sage_simulator.followed_policies import FollowedPolicy
from sage_simulator.outcome import End
from sage_simulator.simulation import SimulationResult
from sage_simulator.timeline import TimelinePoint
from sage_simulator.traced_request import TracedRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantiles:
    """Quantiles of a time, in seconds; None where nothing was measured.  q of n values is the ceil(q x n)-th."""

    p50_s: float | None
    p90_s: float | None
    p99_s: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Quantiles:
        """Take the quantiles of the values that are there."""
        found = sorted(each for each in values if each is not None)

        def at(percent: int) -> float | None:
            return found[-(-percent * len(found) // 100) - 1] if found else None

        return cls(p50_s=at(50), p90_s=at(90), p99_s=at(99))


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceSummary:
    """What one instance did."""

    instance_id: str
    speed: float
    price_per_hour: float
    requests: int  # placed there
    in_target: int
    role: str
    present_s: float  # from when it joined, or the first arrival, to when it left, or the last end
    utilisation: float  # share of that time in which a step ran
    mean_running: float  # sequences, over that time
    used_s: float  # from its first request to the end of its last one
    preemptions: int
    prefix_hit_share: float  # of the prompt tokens looked up
    heartbeats: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a simulation gave, in figures."""

    policy: str
    seed: int
    requests: int
    ends: Mapping[str, int]  # requests by how they ended
    in_target_share: float  # of the requests that their clients did not cancel
    goodput_per_s: float  # requests in target per second of ``arrivals_s``: those of the arriving ones that are kept
    ttft: Quantiles
    tpot: Quantiles
    queue_wait: Quantiles  # from arrival to placement
    arrivals_s: float  # in which the requests arrive at their mean rate; the span where all arrive at one moment
    span_s: float  # from the first arrival to the last end
    output_tokens: int
    cost: float  # price x hours of each instance from its first request to the end of its last one
    fleet_cost: float  # price x hours of each instance's presence
    cost_per_million_tokens: float | None  # ``cost`` by output tokens
    policy_switches: int
    followed: tuple[FollowedPolicy, ...]  # which policy each model followed, from when to when
    stalls: int
    failovers: int  # requests that went on elsewhere after their instance was lost
    splits: int  # placements on a prefill and a decode instance
    role_changes: int  # that the scheduler made by itself
    split_fallbacks: Mapping[str, int]  # that were to be split and were not, or whose handoff failed, by cause
    instances: tuple[InstanceSummary, ...]
    ttft_percentiles_s: tuple[float, ...]  # 0 to 100; empty where nothing was measured
    tpot_percentiles_s: tuple[float, ...]
    timeline: tuple[TimelinePoint, ...]


def summarize(result: SimulationResult) -> Summary:
    """Sum a simulation up."""
    outcomes = result.outcomes
    begin = min(each.request.arrival_s for each in outcomes)
    span_s = max(max(each.ended_at for each in outcomes) - begin, 1e-9)
    arrivals_s = _arrivals_s([each.request for each in outcomes]) or span_s
    kept = Counter(each.instance_id for each in outcomes if each.in_target)
    instances = tuple(_instance(each, kept[each.instance_id], begin, begin + span_s) for each in result.executors)
    cost = sum(each.price_per_hour * each.used_s for each in instances) / 3600
    tokens = sum(each.output_tokens for each in outcomes)
    in_target = kept.total()
    return Summary(
        policy=result.policy,
        seed=result.seed,
        requests=len(outcomes),
        ends={end.value: sum(each.end is end for each in outcomes) for end in End},
        in_target_share=in_target / max(1, sum(each.end is not End.CANCELLED for each in outcomes)),
        goodput_per_s=in_target / arrivals_s,
        ttft=Quantiles.of(each.ttft_s for each in outcomes),
        tpot=Quantiles.of(each.tpot_s for each in outcomes),
        queue_wait=Quantiles.of(each.queue_wait_s for each in outcomes),
        arrivals_s=arrivals_s,
        span_s=span_s,
        output_tokens=tokens,
        cost=cost,
        fleet_cost=sum(each.price_per_hour * each.present_s for each in instances) / 3600,
        cost_per_million_tokens=cost * 1e6 / tokens if tokens else None,
        policy_switches=len(result.switches),
        followed=result.followed,
        stalls=result.stalls,
        failovers=result.failovers,
        splits=result.split_counts.splits,
        role_changes=len(result.role_changes),
        split_fallbacks={cause.value: count for cause, count in result.split_counts.fallback_causes.items()},
        instances=instances,
        ttft_percentiles_s=_percentiles(each.ttft_s for each in outcomes),
        tpot_percentiles_s=_percentiles(each.tpot_s for each in outcomes),
        timeline=result.timeline,
    )


def _arrivals_s(trace: Sequence[TracedRequest]) -> float:
    """Return a mean gap for each request, so that requests by it are the trace's rate; 0 where all arrive at once."""
    first, last = min(each.arrival_s for each in trace), max(each.arrival_s for each in trace)
    return (last - first) * len(trace) / (len(trace) - 1) if last > first else 0.0


def _percentiles(values: Iterable[float | None]) -> tuple[float, ...]:
    found = sorted(each for each in values if each is not None)
    return tuple(found[round(percent / 100 * (len(found) - 1))] for percent in range(101)) if found else ()


def _instance(executor: ExecutorModel, in_target: int, begin_s: float, end_s: float) -> InstanceSummary:
    engine = executor.engine
    left_s = min(executor.up_until_s, end_s) if executor.up_until_s is not None else end_s
    present_s = max(left_s - max(executor.up_from_s, begin_s), 1e-9)
    first = executor.first_used_at
    queried = engine.prefix_queries_tokens
    return InstanceSummary(
        instance_id=executor.instance_id,
        speed=executor.model.speed,
        price_per_hour=executor.model.price_per_hour,
        requests=executor.assigned,
        in_target=in_target,
        role=executor.model.role.value,
        present_s=present_s,
        utilisation=min(1.0, engine.busy_s / present_s),  # a last step may end after the last request
        mean_running=executor.running_s / present_s,
        used_s=executor.last_used_at - first if first is not None else 0.0,
        preemptions=engine.preemptions,
        prefix_hit_share=engine.prefix_hits_tokens / queried if queried else 0.0,
        heartbeats=executor.heartbeats,
    )
