"""The only instance that is offered is judged, to the last bit, as it is among others; no ``choose`` is passed by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.objectives.cheapest import CheapestInTime
from scheduler_svc.domain.objectives.earliest_finish import EarliestFinish
from scheduler_svc.domain.objectives.least_target_used import LeastTargetUsed
from scheduler_svc.domain.objectives.objective import Choice, ChoosesOnly, has_way
from scheduler_svc.domain.targets import DEFAULT_TARGETS
from tests.unit.domain.random_accounts import NOW, make_accounts, make_demand
from tests.unit.domain.test_scores import each_seed

OBJECTIVES: Sequence[ChoosesOnly] = (
    EarliestFinish(),
    EarliestFinish(reserved_slots=1),
    LeastTargetUsed(DEFAULT_TARGETS),
)


def shown(choice: Choice) -> tuple[object, ...]:
    """Return all of a choice, its scores as numbers."""
    scores = {name: [float(each) for each in scores] for name, scores in choice.scores.items()}
    return choice.index, choice.why, choice.rule, scores, choice.waits, choice.least_times, dict(choice.rejected)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
@each_seed
def test_the_only_instance_is_judged_as_among_others(objective: ChoosesOnly, seed: int) -> None:
    rng = Random(seed)
    for account in make_accounts(rng, Ledger()):
        demand = replace(make_demand(rng), cached_tokens={}, overtakes=rng.random() < 0.3)

        assert shown(objective.choose_only(demand, account, NOW)) == shown(
            objective.choose(demand, Accounts([account]), NOW)
        )


@each_seed
def test_the_instances_in_use_are_the_same_after_either_way(seed: int) -> None:
    rng = Random(seed)
    each = make_accounts(rng, Ledger())
    short, long = CheapestInTime(DEFAULT_TARGETS), CheapestInTime(DEFAULT_TARGETS)
    now = NOW
    for _ in range(30):
        account, now = rng.choice(each), now + rng.choice([0.0, 0.1, 5.0])
        demand = replace(make_demand(rng), cached_tokens={}, able=rng.choice([(), tuple(each)]))
        if rng.random() < 0.2:
            demand.request = replace(demand.request, session="s", cost_budget=rng.choice([None, 1e-6, 1.0]))

        assert shown(short.choose_only(demand, account, now)) == shown(long.choose(demand, Accounts([account]), now))


class OfItsOwn(EarliestFinish):
    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        return Choice(index=0, why="mine")


class WithBoth(OfItsOwn):
    def choose_only(self, demand: Demand, account: Account, now: float) -> Choice:
        return self.choose(demand, [account], now)


def test_a_shorter_way_counts_only_beside_the_class_s_own_choice() -> None:
    ways = ("choose_only", "choose_sparing")

    assert [has_way(EarliestFinish, way) for way in ways] == [True, True]
    assert [has_way(OfItsOwn, way) for way in ways] == [False, False]
    assert [has_way(WithBoth, way) for way in ways] == [True, False]
