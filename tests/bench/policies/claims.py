"""What the built-in policies claim, and whether the results bear it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import sub, truediv

from sage_simulator.estimate import Estimate
from sage_simulator.oracle import ORACLE
from scheduler_svc.domain.policies.baselines.table import BASELINES
from scheduler_svc.domain.policies.builtin import BUILTIN
from tests.bench.policies.cell import Group
from tests.bench.policies.figures import Figures
from tests.bench.policies.fixed_loads import BUSY, ECONOMICAL, IDLE, OVERLOAD
from tests.bench.policies.fleets import SEPARATED, find_fleet
from tests.bench.policies.readings import Readings
from tests.bench.policies.stages import ORDERINGS
from tests.bench.policies.traffic import BURSTY, MOONCAKE, SESSIONS, SHARES_PREFIXES
from tests.bench.policies.variants import PREFIX_BLIND, SPLIT_ALWAYS, SPLIT_NEVER

FIXED = tuple(name for name in BUILTIN if name != "adaptive")
ROUTERS = tuple(name for name in BASELINES if name not in ORDERINGS)
KNOWS_SPEEDS = "least_predicted_work"

_ALIKE = 0.1  # in target, between classes with equal targets: the smallest class has some hundred requests
_ALL_BUT_ALL = 0.99  # share in target that "in time" means where cost is compared


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One claim in one group."""

    claim: str
    group: Group
    value: Estimate
    at_least: float | None = None  # the target; None: told, not judged
    at_most: float | None = None
    note: str = ""

    @property
    def short_by(self) -> float:
        """By what share of the target the mean misses it; 0 or less where it is met."""
        if self.at_least is not None:
            return 1 - self.value.mean / self.at_least if self.at_least else -self.value.mean
        if self.at_most is not None:
            return self.value.mean / self.at_most - 1 if self.at_most else self.value.mean
        return 0.0

    @property
    def undecided(self) -> bool:
        """Whether the target lies within the 95 % interval, so that other seeds may say otherwise."""
        target = self.at_least if self.at_least is not None else self.at_most
        half_width = self.value.half_width
        return target is not None and half_width is not None and abs(self.value.mean - target) < half_width

    @property
    def words(self) -> str:
        """The verdict in words."""
        if self.at_least is None and self.at_most is None:
            return "told"
        found = "met" if self.short_by <= 0 else f"missed by {self.short_by:.1%}"
        return f"{found}, within the interval" if self.undecided else found


def judge(readings: Readings) -> list[Verdict]:
    """Judge every claim in every group for which its cells were run."""
    return [verdict for group in readings.groups for claim in CLAIMS for verdict in claim(readings, group)]


def _ratio(
    readings: Readings, group: Group, claim: str, policy: str, other: str | None, at_least: float | None
) -> Iterator[Verdict]:
    if other is not None and (ratio := readings.goodput_ratio(group, policy, other)) is not None:
        yield Verdict(claim=claim, group=group, value=ratio, at_least=at_least, note=f"goodput by {other}'s")


def _slo_aware(readings: Readings, group: Group) -> Iterator[Verdict]:
    claim = "slo_aware"
    if group.fleet == "U8":
        yield from _ratio(readings, group, f"{claim}: least outstanding", claim, "least_requests", 1.3)
        yield from _ratio(readings, group, f"{claim}: knows speeds", claim, KNOWS_SPEEDS, 0.95)
    if group.fleet == "E8":
        at_least = 1.4 if group.traffic in BURSTY else 1.0
        yield from _ratio(readings, group, f"{claim}: best router", claim, readings.best(group, ROUTERS), at_least)
        yield from _ratio(readings, group, f"{claim}: best ordering", claim, readings.best(group, ORDERINGS), None)
    yield from _ratio(readings, group, f"{claim}: nowhere below fifo", claim, "fifo", 1.0)
    yield from _ratio(readings, group, f"{claim}: share of the oracle", claim, ORACLE, None)


def _equal_targets(readings: Readings, group: Group) -> Iterator[Verdict]:
    if group.targets != "equal":
        return
    for load in (ECONOMICAL, BUSY):
        value = readings.estimate(group, "slo_aware", load, lambda figures: figures.class_in_target_spread)
        if value is not None:
            claim, note = "slo_aware: equal targets", f"in target, best class less worst, load {load:g}"
            yield Verdict(claim=claim, group=group, value=value, at_most=_ALIKE, note=note)


def _fifo_and_priority(readings: Readings, group: Group) -> Iterator[Verdict]:
    if group.fleet != "U8":
        return
    for policy in ("fifo", "priority"):
        yield from _ratio(readings, group, f"{policy}: knows speeds", policy, KNOWS_SPEEDS, 0.95)


def _fifo_order(readings: Readings, group: Group) -> Iterator[Verdict]:
    if group.fleet != "E8":
        return
    for load in (BUSY, OVERLOAD):
        value = readings.estimate(group, "fifo", load, lambda figures: figures.overtaken / figures.requests)
        if value is not None:
            claim = "fifo: nothing overtakes"
            yield Verdict(claim=claim, group=group, value=value, at_most=0.0, note=f"share of requests, load {load:g}")


def _priority_critical(readings: Readings, group: Group) -> Iterator[Verdict]:
    if group.targets != "mixed":
        return
    idle = readings.estimate(group, "priority", IDLE, _critical)
    for load in (BUSY, OVERLOAD):
        value = readings.estimate(group, "priority", load, _critical)
        if idle is not None and value is not None:
            yield Verdict(
                claim="priority: CRITICAL p99 TTFT",
                group=group,
                value=value,
                at_most=idle.mean + largest_step_s(group),
                note=f"s, load {load:g}",
            )


def _critical(figures: Figures) -> float | None:
    return figures.critical_ttft_p99_s


def largest_step_s(group: Group) -> float:
    """Return the seconds of the largest step that an instance of the fleet can make."""
    return max(
        each.pace_here.iteration_s(each.max_batched_tokens, each.max_running, each.kv_capacity_tokens)
        for each in find_fleet(group.fleet, group.slots)
    )


def _cost(figures: Figures) -> float | None:
    return figures.cost_per_million_tokens


def _share(figures: Figures) -> float:
    return figures.in_target_share


def _cost_optimized(readings: Readings, group: Group) -> Iterator[Verdict]:
    if group.fleet != "U8":
        return
    value = _cost_ratio(readings, group, "cost_optimized", "fifo")
    if value is not None:
        claim, note = "cost_optimized: cost", "per token by fifo's"
        yield Verdict(claim=claim, group=group, value=value, at_most=0.8, note=f"{note}, load {ECONOMICAL:g}")
    share = readings.estimate(group, "cost_optimized", ECONOMICAL, _share)
    if share is not None:
        claim = "cost_optimized: in target"
        yield Verdict(claim=claim, group=group, value=share, at_least=_ALL_BUT_ALL, note=f"load {ECONOMICAL:g}")


def _cost_ratio(readings: Readings, group: Group, policy: str, other: str) -> Estimate | None:
    return readings.compared(group, (policy, other), ECONOMICAL, _cost, truediv)


def _adaptive(readings: Readings, group: Group) -> Iterator[Verdict]:
    best = readings.best(group, FIXED)
    yield from _ratio(readings, group, "adaptive: best fixed policy", "adaptive", best, 0.97)
    for load in (ECONOMICAL, BUSY) if group.traffic not in BURSTY else ():  # bursts are no steady load
        switches = readings.estimate(group, "adaptive", load, lambda figures: figures.switches_per_minute)
        if switches is not None:
            claim, note = "adaptive: switches a minute", f"load {load:g}"
            yield Verdict(claim=claim, group=group, value=switches, at_most=1.0, note=note)
    if group.fleet == "U8":
        yield from _adaptive_cost(readings, group)


def _adaptive_cost(readings: Readings, group: Group) -> Iterator[Verdict]:
    costs: dict[str, float] = {}
    for policy in FIXED:
        share, cost = (readings.estimate(group, policy, ECONOMICAL, read) for read in (_share, _cost))
        if share is not None and cost is not None and share.mean >= _ALL_BUT_ALL:
            costs[policy] = cost.mean
    cheapest = min(costs, key=costs.__getitem__, default=None)
    value = _cost_ratio(readings, group, "adaptive", cheapest) if cheapest is not None else None
    if value is not None:
        note = f"per token by {cheapest}'s, load {ECONOMICAL:g}"
        yield Verdict(claim="adaptive: cost", group=group, value=value, at_most=1.03, note=note)


def _splitting(readings: Readings, group: Group) -> Iterator[Verdict]:
    if group.fleet != SEPARATED:
        return
    for variant in (SPLIT_ALWAYS, SPLIT_NEVER):
        other = f"slo_aware/{variant}"
        yield from _ratio(readings, group, "splitting: adaptive", "slo_aware", other, 0.97)


def _prefixes(readings: Readings, group: Group) -> Iterator[Verdict]:
    if group.traffic == SESSIONS:
        yield from _first_tokens_of_sessions(readings, group)
    blind = f"slo_aware/{PREFIX_BLIND}"
    at_least = 1.1 if group.fleet == "E8" and group.traffic == MOONCAKE else 1.0
    yield from _ratio(readings, group, "prefixes: goodput", "slo_aware", blind, at_least)
    if group.fleet != "E8" or group.traffic not in SHARES_PREFIXES:
        return
    more = readings.compared(group, ("slo_aware", blind), BUSY, _share, sub)
    if more is not None:
        note = f"more in target, load {BUSY:g}"
        at_least = 0.1 if group.traffic == MOONCAKE else 0.0
        yield Verdict(claim="prefixes: in target", group=group, value=more, at_least=at_least, note=note)
    busy = readings.estimate(group, "slo_aware", BUSY, lambda figures: figures.busy_imbalance)
    if busy is not None:
        note = f"most busy by the mean, load {BUSY:g}"
        yield Verdict(claim="prefixes: balance", group=group, value=busy, at_most=1.5, note=note)


def _first_tokens_of_sessions(readings: Readings, group: Group) -> Iterator[Verdict]:
    for policy in BUILTIN:
        both = (policy, f"{policy}/{PREFIX_BLIND}")
        value = readings.compared(group, both, ECONOMICAL, _ttft_mean, truediv)
        if value is not None:
            note = f"{policy}'s mean TTFT by that without, load {ECONOMICAL:g}"
            yield Verdict(claim="prefixes: TTFT of sessions", group=group, value=value, at_most=0.5, note=note)


def _ttft_mean(figures: Figures) -> float | None:
    return figures.ttft_mean_s


CLAIMS: Sequence[Callable[[Readings, Group], Iterator[Verdict]]] = (
    _slo_aware,
    _equal_targets,
    _fifo_and_priority,
    _fifo_order,
    _priority_critical,
    _cost_optimized,
    _adaptive,
    _splitting,
    _prefixes,
)
