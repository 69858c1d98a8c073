"""What is told of crowded instances with plain numbers is what the objective finds with columns."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from unittest.mock import patch

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.objectives import cheapest, one_candidate
from scheduler_svc.domain.objectives.cheapest import CheapestInTime
from scheduler_svc.domain.objectives.crowded import all_crowded
from scheduler_svc.domain.objectives.instances_in_use import InstancesInUse
from scheduler_svc.domain.objectives.target_shares import TargetShares
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import DEFAULT_TARGETS
from tests.unit.domain.random_accounts import NOW, make_accounts, make_demand

_HEADROOM = 0.8


def crowded(demand: Demand, accounts: Accounts, in_use: InstancesInUse) -> bool:
    targets = TargetShares(demand, DEFAULT_TARGETS, NOW)
    return all_crowded(demand, accounts, in_use, targets, NOW, headroom=_HEADROOM)


def drawn(seed: int) -> tuple[Demand, Accounts]:
    """Draw accounts, nearly all full or crowded, and a request of which ``all_crowded`` can tell anything."""
    rng, ledger = Random(seed), Ledger()
    demand = make_demand(rng)
    accounts = [a for _ in range(6) for a in make_accounts(rng, ledger) if rng.random() < 0.05 or is_full(a, demand)]
    for number, account in enumerate(accounts):
        account.instance_id = f"i{number:02}"
    request = replace(
        demand.request,
        priority=rng.choice(list(Priority)),
        arrived_at=NOW - 0.1,
        deadline_stated=False,
        ttft_target_s=rng.choice([None, 100.0]),
        tpot_target_s=rng.choice([0.5, 5.0]),
    )
    return replace(demand, request=request, cached_tokens={}, started=False), Accounts(accounts[:8])


def is_full(account: Account, demand: Demand) -> bool:
    return account.free_slots <= 0 or one_candidate.token_s(account, demand) > _HEADROOM * account.tightest_token_s


@pytest.mark.interpreted
def test_where_all_are_crowded_the_request_waits() -> None:
    found = 0
    for seed in range(400):
        demand, accounts = drawn(seed)
        if not accounts:
            continue
        objective = CheapestInTime(DEFAULT_TARGETS)
        in_use = objective._of(demand.request.model)
        for account in accounts:
            in_use.take(account, accounts, NOW, risk=0.0)
        with patch.object(cheapest, "all_crowded", lambda *_, headroom: False):
            choice = objective.choose(demand, accounts, NOW)
        if crowded(demand, accounts, in_use):
            found += 1
            assert choice.waits
    assert found > 10


def test_a_request_that_has_to_go_to_the_only_one_is_told_the_scores_there() -> None:
    for seed in range(50):
        demand, accounts = drawn(seed)
        if not accounts:
            continue
        alone = Accounts(accounts[:1])

        choice = CheapestInTime(DEFAULT_TARGETS).choose(demand, alone, NOW)

        assert choice.scores
