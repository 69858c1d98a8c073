"""Scores that are worked out for all instances at once are, bit for bit, those of each instance by itself."""

from __future__ import annotations

from math import inf, nan
from random import Random

import numpy as np
import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.picker import RELATIVE_TOLERANCE, TIME_TOLERANCE_S, pick
from scheduler_svc.domain.objectives.target_shares import TargetShares
from scheduler_svc.domain.placement.filters import with_capacity, with_slots
from scheduler_svc.domain.placement.run_prediction import predict_run
from scheduler_svc.domain.targets import DEFAULT_TARGETS, effective_targets
from tests.unit.domain.random_accounts import NOW, make_accounts, make_demand

each_seed = pytest.mark.parametrize("seed", range(100))


def drawn(rng: Random) -> tuple[list[Account], Demand]:
    return make_accounts(rng, Ledger()), make_demand(rng)


@each_seed
def test_a_score_is_the_figure_that_is_predicted_of_the_instance_alone(seed: int) -> None:
    each, demand = drawn(Random(seed))
    demand.cache_known = True  # the learned share of cached tokens is applied in another order: the last bit may differ
    runs = [predict_run(a, demand, NOW) for a in each]

    starts = scorers.start_s(each, NOW)
    firsts = scorers.first_token_s(each, demand, starts)
    per_token = scorers.token_s(each, demand)

    assert starts.tolist() == [run.start_s for run in runs]
    assert firsts.tolist() == [run.first_token_s for run in runs]
    assert scorers.finish_s(demand, firsts, per_token).tolist() == [run.finish_s for run in runs]
    assert scorers.cost(each, demand, per_token).tolist() == [run.cost for run in runs]


@each_seed
def test_the_share_of_targets_is_the_largest_of_each_instances_own(seed: int) -> None:
    each, demand = drawn(Random(seed))
    per_token = scorers.token_s(each, demand)
    firsts = scorers.first_token_s(each, demand, scorers.start_s(each, NOW))
    finishes = scorers.finish_s(demand, firsts, per_token)

    shares = TargetShares(demand, DEFAULT_TARGETS, NOW).of(firsts, per_token)

    request, targets = demand.request, effective_targets(demand.request, DEFAULT_TARGETS)
    expected = [0.0] * len(each)
    if targets.ttft_s is not None and not demand.started:
        left_s = request.arrived_at + targets.ttft_s - NOW
        counts = request.target_at is None or min(firsts) <= left_s
        expected = [first * (1 / max(left_s, 1e-6) if counts else 0.0) for first in firsts]
    if targets.tpot_s is not None:
        own = [token * (1 / targets.tpot_s) for token in per_token]
        expected = [max(pair) for pair in zip(expected, own, strict=True)]
    if request.target_at is not None:
        own = [finish * (1 / max(request.target_at - NOW, 1e-6)) for finish in finishes]
        expected = [max(pair) for pair in zip(expected, own, strict=True)]
    assert shares.tolist() == expected


@each_seed
def test_nobody_is_below_the_least_of_the_range_and_its_other_end_is_the_share_of_the_account(seed: int) -> None:
    rng = Random(seed)
    each, demand = drawn(rng)
    firsts, per_token = (np.array([rng.choice([0.5, rng.uniform(0, 3)]) for _ in each]) for _ in range(2))
    row = rng.randrange(len(each))
    targets = TargetShares(demand, DEFAULT_TARGETS, NOW)

    shares, found = targets.of(firsts, per_token).tolist(), targets.range_of(row, firsts, per_token)

    if found is not None:
        least, own = found
        assert least <= min(shares)
        assert own == shares[row]
    if row == firsts.argmin():
        assert found is not None


@each_seed
def test_capacity_is_looked_at_for_all_as_for_each(seed: int) -> None:
    each, demand = drawn(Random(seed))
    reserve = demand.must_leave_reserve
    fits = [demand.tokens <= a.free_tokens for a in each]
    prompts = [a.prompt_limit_leaving_reserve if reserve else a.prompt_limit for a in each]
    slots = [a.slot_limit_leaving_reserve if reserve else a.slot_limit for a in each]

    found, legs = with_capacity(Accounts(each), demand), with_slots(Accounts(each), demand)

    p = demand.prompt_tokens
    assert list(found) == [a for a, fit, most in zip(each, fits, prompts, strict=True) if fit and p <= most]
    assert list(legs) == [a for a, fit, most in zip(each, fits, slots, strict=True) if fit and p <= most]


@each_seed
def test_what_is_picked_is_what_a_walk_over_the_instances_picks(seed: int) -> None:
    rng = Random(seed)
    each, demand = drawn(rng)
    values = [rng.choice([0.0, 0.001, 0.002, 1.0, 1.001, 1.05, rng.uniform(0, 2)]) for _ in each]
    within = [rng.random() < 0.7 for _ in each]
    within[rng.randrange(len(each))] = True
    tolerance, relative = rng.choice([(0.0, 0.0), (TIME_TOLERANCE_S, RELATIVE_TOLERANCE)])
    cached = demand.cached_tokens
    mask = np.array(within)

    picked = pick(Accounts(each), values, among=mask, tolerance=tolerance, relative=relative, cached=cached)

    best = min(value for value, counts in zip(values, within, strict=True) if counts)
    near = [i for i, value in enumerate(values) if within[i] and value <= best + best * relative + tolerance]
    assert picked == min(near, key=lambda i: (-cached.get(each[i].instance_id, 0), each[i].turn, i))
    if all(within):
        assert picked == pick(each, values, tolerance=tolerance, relative=relative, cached=cached)


def test_equal_scores_that_are_all_infinite_go_by_load() -> None:
    each = [Account("a"), Account("b")]

    assert pick(each, [inf, inf]) == pick(each, [inf, inf], tolerance=0.0, relative=0.0) == 0


def test_a_score_that_is_no_number_leaves_the_choice_to_the_load() -> None:
    each = [Account("a"), Account("b")]

    assert pick(each, [nan, nan]) == pick(each, [1.0, nan]) == 0
    assert pick(each, [nan, 1.0], cached={"b": 16}) == 1
