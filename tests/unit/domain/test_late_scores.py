"""Scores that are worked out when they are read are those of the time of the choice."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.cheapest import CheapestInTime
from scheduler_svc.domain.objectives.late_scores import LateScores
from scheduler_svc.domain.prediction.pace import Pace
from scheduler_svc.domain.targets import DEFAULT_TARGETS
from tests.unit.domain.random_accounts import NOW, make_accounts, make_demand

SLOW = Pace(base_s=9.0, prefill_token_s=1.0, running_s=1.0, kv_token_s=1.0)


def test_they_are_worked_out_once_and_only_if_they_are_read() -> None:
    asked = []

    def work_out() -> scorers.Scores:
        asked.append(1)
        return np.array([3.0, 1.0, 2.0])

    scores = LateScores(3, work_out)

    assert len(scores) == 3
    assert not asked
    assert [*scores] == [3.0, 1.0, 2.0]
    assert scores[1:] == [1.0, 2.0]
    assert len(asked) == 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("some", [False, True])
def test_costs_that_are_read_later_are_those_of_the_choice(seed: int, some: bool) -> None:
    rng = Random(seed)
    each, demand = make_accounts(rng, Ledger()), make_demand(rng)
    accounts = Accounts(each)
    offered = accounts.take(np.arange(0, len(each), 2)) if some else accounts
    expected = scorers.cost(offered, demand, scorers.token_s(offered, demand)).tolist()

    choice = CheapestInTime(DEFAULT_TARGETS).choose(demand, offered, NOW)
    for account in each:
        account.learn(SLOW)
    assert accounts.figures.decode_token_s.min() >= SLOW.base_s

    assert [*choice.scores["cost"]] == expected
