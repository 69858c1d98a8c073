"""An objective decides over columns as its formula does, worked out for one instance after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from math import inf
from random import Random

import numpy as np
import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.figures import Mask
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.objectives.cheapest import CheapestInTime
from scheduler_svc.domain.objectives.earliest_finish import EarliestFinish
from scheduler_svc.domain.objectives.instances_in_use import InstancesInUse
from scheduler_svc.domain.objectives.least_target_used import LeastTargetUsed
from scheduler_svc.domain.objectives.objective import Sparing
from scheduler_svc.domain.placement.run_prediction import predict_run
from scheduler_svc.domain.prediction.margin import PRIOR_MARGINS
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import DEFAULT_TARGETS, effective_targets
from tests.unit.domain.random_accounts import NOW, make_accounts, make_demand

each_seed = pytest.mark.parametrize("seed", range(200))

PREFILL_WEIGHT = 3.0
HEADROOM = 0.8
PATIENCE = 0.5


class Fleet:
    """Random accounts and a demand, with the formulas' terms as plain lists."""

    def __init__(self, seed: int, *, equal: bool = False) -> None:
        """``equal``: all engines have the same speed."""
        rng = Random(seed)
        self.each: Sequence[Account] = make_accounts(rng, Ledger())
        if equal:
            for account in self.each:
                account.learn(self.each[0].pace)
        demand = make_demand(rng)
        request = demand.request
        if rng.random() < 0.3:
            request = replace(request, cost_budget=rng.choice([0.0, 1e-6, 1e-3, 1.0]))
        critical = request.priority is Priority.CRITICAL
        self.demand = replace(demand, request=request, overtakes=critical and rng.random() < 0.5)
        self.accounts = Accounts(self.each)
        self.known = self.demand  # with all that caches hold: how late others are is worked out once
        self._predict()

    def holding(self, cached: Mapping[str, int]) -> Fleet:
        """Return the same fleet with other tokens in its caches."""
        other = copy(self)
        other.demand = replace(self.demand, cached_tokens=cached)
        other._predict()
        return other

    def _predict(self) -> None:
        queued = replace(self.demand, overtakes=False)
        runs = [predict_run(a, queued, NOW) for a in self.each]
        self.finishes = [run.finish_s for run in runs]
        self.costs = [run.cost for run in runs]
        self.firsts = [run.first_token_s for run in runs]
        context = self.demand.prompt_tokens + self.demand.output_tokens / 2
        self.tokens = [a.output_token_s + a.output_kv_token_s * context for a in self.each]
        self.shares = self._shares()
        self.rows = range(len(self.each))
        self.free = [row for row in self.rows if self.each[row].free_slots > 0]
        own_s = effective_targets(self.demand.request, DEFAULT_TARGETS).tpot_s
        self.own_s = inf if own_s is None else own_s
        self.beside = [self._beside(a, token_s) for a, token_s in zip(self.each, self.tokens, strict=True)]
        self.late = [row for row in self.rows if self._makes_late(self.each[row], self.beside[row])]
        self.crowd = self._crowd()

    def _beside(self, account: Account, token_s: float) -> float:
        """Return seconds per token beside the request's own prompt, which weighs as one of ten seconds."""
        left = account.decode_share
        prefill_s = account.prefill_s(self.demand.prompt_tokens, self.known.cached_on(account.instance_id))
        return token_s * left / max(left - prefill_s / 10, 0.05)

    def _pressure(self, account: Account, token_s: float) -> float:
        """Return the time per token with a fifth as much company again, by the tightest target there."""
        return _with_company(account, token_s) / min(self.own_s, *account.token_targets, inf)

    def _crowd(self) -> int | None:
        """Return the row where those who run are the latest; None if no room is anywhere, or less than half is kept."""
        pressures = [self._pressure(a, token_s) for a, token_s in zip(self.each, self.beside, strict=True)]
        if sum(pressure <= 1.1 for pressure in pressures) * 2 < len(pressures):
            return None
        wanted = self.demand
        taking = [
            row
            for row in self.free
            if self.each[row].slot_limit >= wanted.prompt_tokens
            and self.each[row].free_tokens >= wanted.tokens
            and (not self.each[row].prefill_full or self.each[row].ready_at > NOW)
        ]
        self.room_soon = any(pressures[row] <= 1 for row in taking)
        return max(taking, key=lambda row: pressures[row], default=None)

    def _makes_late(self, account: Account, token_s: float) -> bool:
        """Whether some who run there would be late.

        With half of the margin, and at most as a full step takes, if they have a tighter target than the request; else
        with a fifth as much company again.
        """
        tightest_s = min(account.token_targets, default=inf)
        if self.own_s <= tightest_s:
            return _with_company(account, token_s) > tightest_s
        likely_s = token_s * (1 + min(account.token_margin, PRIOR_MARGINS.token)) / 2
        return min(likely_s, max(token_s, account.chunk_s)) > tightest_s

    def _shares(self) -> list[float]:
        request = self.demand.request
        targets = effective_targets(request, DEFAULT_TARGETS)
        shares = [0.0 for _ in self.each]  # of what a wait uses up
        if targets.ttft_s is not None and not self.demand.started:
            left_s = request.arrived_at + targets.ttft_s - NOW
            if request.target_at is None or min(self.firsts) <= left_s:
                shares = [first / max(left_s, 1e-6) for first in self.firsts]
        if request.target_at is not None:
            left_s = max(request.target_at - NOW, 1e-6)
            shares = [max(share, finish / left_s) for share, finish in zip(shares, self.finishes, strict=True)]
        self.due = shares
        if targets.tpot_s is not None:
            shares = [max(share, token / targets.tpot_s) for share, token in zip(shares, self.tokens, strict=True)]
        return shares

    def weighed(self, times: Sequence[float]) -> list[float]:
        """Return the times and, weighed, those of the prefill."""
        prefills = [a.prefill_s(self.demand.prompt_tokens, self.demand.cached_on(a.instance_id)) for a in self.each]
        return [time + PREFILL_WEIGHT * prefill for time, prefill in zip(times, prefills, strict=True)]

    def least(
        self, values: Sequence[float], rows: Iterable[int], *, relative: float = 0.05, by_cache: bool = False
    ) -> int:
        """Return the row of the least value; of nearly equal ones that with most of the prompt, then least load."""
        rows = list(rows)
        best = min(values[row] for row in rows)
        tolerance = 2e-3 if relative != 0.0 else 1e-12
        near = [row for row in rows if values[row] <= best + best * (relative or 0.05) + tolerance]
        cached = self.demand.cached_tokens if by_cache else {}
        return min(near, key=lambda row: (-cached.get(self.each[row].instance_id, 0), self.each[row].turn, row))


def _with_company(account: Account, token_s: float) -> float:
    return account.lone_token_s + 1.2 * max(token_s - account.lone_token_s, 0.0)


def earliest_finish(fleet: Fleet) -> int:
    """Choose as ``EarliestFinish`` says."""
    times = fleet.finishes
    if fleet.demand.overtakes:
        times = [predict_run(a, fleet.demand, NOW).first_token_s for a in fleet.each]
    if fleet.demand.cached_tokens:
        times = fleet.weighed(times)
    return fleet.least(times, fleet.rows, by_cache=True)


def held_back(fleet: Fleet) -> bool:
    """Whether ``LeastTargetUsed`` has the request wait.

    Where it is in time, others are late, and it has headroom; or where it makes others late everywhere, as long as it
    has headroom before its first token and its end.
    """
    in_time = [row for row in fleet.rows if fleet.shares[row] <= 1]
    if not fleet.late or not _may_wait(fleet) or not set(in_time) & set(fleet.free) <= set(fleet.late):
        return False
    if set(in_time) <= set(fleet.late) and any(fleet.shares[row] <= HEADROOM for row in in_time):
        return True
    return fleet.crowd is not None and min(fleet.due) <= HEADROOM


def never(fleet: Fleet) -> bool:
    """Say that no request is held back."""
    return False


def least_target_used(fleet: Fleet) -> int:
    """Choose as ``LeastTargetUsed`` says of a request that is not held back."""
    shares = fleet.shares
    if fleet.demand.cached_tokens:
        harmless = [row for row in fleet.free if row not in fleet.late and shares[row] <= 1] if fleet.late else []
        return fleet.least(fleet.weighed(fleet.finishes), harmless or fleet.free or fleet.rows, by_cache=True)
    if min(shares) > 1:
        harmless = [row for row in fleet.free if row not in fleet.late] if fleet.late else []
        if fleet.late and not harmless and fleet.crowd is not None and not fleet.demand.started:
            return fleet.crowd
        return fleet.least(fleet.finishes, harmless or fleet.rows)
    meets = [row for row in fleet.rows if shares[row] <= 1]
    at_once = [row for row in meets if row in fleet.free]
    harmless = [row for row in at_once if row not in fleet.late]
    if fleet.late and not harmless and fleet.crowd is not None and not fleet.demand.started:
        return fleet.crowd
    at_once = harmless or at_once
    return fleet.least(shares if max(shares) > 0 else fleet.finishes, at_once or meets, relative=0.01)


def cheapest_in_time(fleet: Fleet) -> int | None:
    """Choose as ``CheapestInTime`` says of a load that has just begun; None where the request waits."""
    in_use, shares, costs = InstancesInUse(), fleet.shares, fleet.costs
    in_use.review(fleet.accounts, fleet.demand.load, NOW)
    budget = fleet.demand.request.cost_budget
    within = [row for row in fleet.rows if costs[row] <= (inf if budget is None else budget)] or list(fleet.rows)
    used = [row for row in within if fleet.each[row].instance_id in in_use]
    mine = [row for row in used if row in fleet.free]
    meets = [row for row in mine if shares[row] <= HEADROOM]
    if meets:
        tight = [token / a.tightest_token_s for token, a in zip(fleet.tokens, fleet.each, strict=True)]
        crowding = [max(share, other) for share, other in zip(shares, tight, strict=True)]
        roomy = [row for row in meets if crowding[row] <= HEADROOM]
        return None if not roomy and _may_wait(fleet) else fleet.least(crowding, roomy or meets)
    unused = [row for row in within if row not in used]
    least = min((shares[row] for row in unused), default=None)
    patient = least is None or not PATIENCE < least <= 1
    in_time = bool(unused) and any(shares[row] <= HEADROOM for row in used)
    soon = {a.instance_id for a in in_use.soon_with_capacity(fleet.accounts, fleet.demand.tokens, NOW)}
    full = any(fleet.each[row].instance_id in soon for row in within)
    if patient and (not mine or _may_wait(fleet)) and (full or in_time):
        return None
    others = [row for row in unused if shares[row] <= HEADROOM]
    if others:
        return fleet.least(costs, others, relative=0.0)
    return fleet.least(fleet.finishes, mine or [row for row in within if row in fleet.free] or within)


def _may_wait(fleet: Fleet) -> bool:
    """Whether less than half of the time to the first token, the class's where none is stated, and deadline is over."""
    request = fleet.demand.request
    ttft_s = effective_targets(request, DEFAULT_TARGETS).ttft_s or DEFAULT_TARGETS[request.priority].ttft_s
    assert ttft_s is not None
    whole_s = ttft_s if request.target_at is None else min(ttft_s, request.target_at - request.arrived_at)
    return not fleet.demand.started and NOW - request.arrived_at < PATIENCE * whole_s


@each_seed
@pytest.mark.parametrize("reserved_slots", [0, 1])
def test_the_earliest_finish_is_that_of_the_formula(seed: int, reserved_slots: int) -> None:
    fleet = Fleet(seed)
    objective = EarliestFinish(reserved_slots=reserved_slots)

    chosen = objective.choose(fleet.demand, fleet.accounts, NOW).index

    assert chosen == earliest_finish(fleet)


@each_seed
def test_the_least_share_of_targets_is_that_of_the_formula(seed: int) -> None:
    fleet = Fleet(seed)
    objective = LeastTargetUsed(DEFAULT_TARGETS)

    choice = objective.choose(fleet.demand, fleet.accounts, NOW)

    assert choice.waits == held_back(fleet)
    assert choice.waits or choice.index == least_target_used(fleet)


@each_seed
@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize(
    ("objective", "formula", "waits"),
    [
        (EarliestFinish(), earliest_finish, never),
        (LeastTargetUsed(DEFAULT_TARGETS), least_target_used, held_back),
    ],
)
def test_a_too_loaded_instance_is_chosen_only_whatever_caches_hold(
    seed: int, equal: bool, objective: Sparing, formula: Callable[[Fleet], int], waits: Callable[[Fleet], bool]
) -> None:
    fleet, rng = Fleet(seed, equal=equal), Random(seed)
    too_loaded = [row for row in fleet.rows if rng.random() < 0.4]
    names = {fleet.each[row].instance_id for row in too_loaded}
    spared = fleet.holding({name: n for name, n in fleet.demand.cached_tokens.items() if name not in names})
    bare = fleet.holding({})
    whatever = formula(bare)

    choice = objective.choose_sparing(
        fleet.demand,
        fleet.accounts,
        NOW,
        too_loaded=np.array([row in too_loaded for row in fleet.rows]),
        held=spared.demand.cached_in(fleet.accounts) if spared.demand.cached_tokens else None,
    )

    decides = bare if whatever in too_loaded else spared
    assert choice.waits == waits(decides)
    assert choice.waits or choice.index == formula(decides)


@each_seed
def test_the_cheapest_in_time_is_that_of_the_formula(seed: int) -> None:
    fleet = Fleet(seed)

    choice = CheapestInTime(DEFAULT_TARGETS).choose(fleet.demand, fleet.accounts, NOW)

    assert (None if choice.waits else choice.index) == cheapest_in_time(fleet)


@each_seed
def test_some_of_many_instances_are_compared_as_if_there_were_no_others(seed: int) -> None:
    fleet, rng = Fleet(seed), Random(seed)
    kept = [row for row in fleet.rows if rng.random() < 0.6] or [0]
    alone = Accounts([fleet.each[row] for row in kept])
    some = fleet.accounts.where(_mask(kept, len(fleet.each)))

    for objective in (EarliestFinish(), LeastTargetUsed(DEFAULT_TARGETS)):
        among_many = objective.choose(fleet.demand, some, NOW)
        among_few = objective.choose(fleet.demand, alone, NOW)
        assert (among_many.index, among_many.why) == (among_few.index, among_few.why)


def _mask(rows: Sequence[int], length: int) -> Mask:
    mask = np.zeros(length, dtype=np.bool_)
    mask[list(rows)] = True
    return mask
