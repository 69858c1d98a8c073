"""The most room of any instance tells that a request finds none, and never that it finds none where it finds some."""

from __future__ import annotations

from random import Random

import pytest

from scheduler_svc.domain.capacity.accounts import NO_ACCOUNTS, Accounts
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.placement.filters import prompt_limit, with_capacity
from scheduler_svc.domain.placement.room import MostRoom
from tests.unit.domain.random_accounts import make_accounts, make_demand
from tests.unit.domain.test_scores import each_seed


@each_seed
def test_a_request_that_lacks_room_is_offered_no_instance(seed: int) -> None:
    rng = Random(seed)
    accounts = Accounts(make_accounts(rng, Ledger()))
    room = MostRoom(accounts)

    for _ in range(10):
        demand = make_demand(rng)
        limit = prompt_limit(leaves_reserve=demand.must_leave_reserve, overtakes=demand.overtakes)
        lacks = room.lacks(limit, demand.prompt_tokens, demand.tokens)
        assert not (lacks and with_capacity(accounts, demand))


@each_seed
def test_one_instance_has_the_room_that_is_told(seed: int) -> None:
    rng = Random(seed)
    accounts = Accounts(make_accounts(rng, Ledger())[:1])
    room = MostRoom(accounts)

    for _ in range(10):
        demand = make_demand(rng)
        limit = prompt_limit(leaves_reserve=demand.must_leave_reserve, overtakes=demand.overtakes)
        lacks = room.lacks(limit, demand.prompt_tokens, demand.tokens)
        assert lacks is not bool(with_capacity(accounts, demand))


@pytest.mark.parametrize("limit", ["prompt_limit", "prompt_limit_leaving_reserve", "urgent_limit"])
def test_no_instance_has_no_room(limit: str) -> None:
    assert MostRoom(NO_ACCOUNTS).lacks(limit, 0, 0)
