"""Which instances a load needs: the cheapest that carry it, held for a while."""

from __future__ import annotations

from typing import Any

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.offered_load import OfferedLoad
from scheduler_svc.domain.objectives.instances_in_use import HOLD_S, InstancesInUse
from scheduler_svc.domain.prediction.pace import Pace
from tests.contract.policies.modelled_fleet import make_facts


def make_account(instance_id: str, *, speed: float = 1.0, price: float = 1.0, **facts: Any) -> Account:
    account = Account(instance_id)
    pace = Pace(base_s=1e-3 / speed, prefill_token_s=1e-4 / speed, running_s=1e-4 / speed, kv_token_s=0.0)
    account.open(make_facts(max_running=100, **facts), pace, price_per_hour=price)
    return account


class World:
    """Requests that each take 0.1 s of an instance of speed 1 for the prompt and 0.011 s for the output."""

    def __init__(self, *accounts: Account) -> None:
        self.accounts = accounts
        self.load = OfferedLoad()
        self.in_use = InstancesInUse()
        self.now = 0.0

    def play(self, *, rate: float, seconds: float) -> set[str]:
        """Have requests come evenly; return what is in use at the end."""
        end = self.now + seconds
        while self.now < end:
            self.load.add(1_000, 100, self.now)
            self.in_use.review(self.accounts, self.load, self.now)
            self.now += 1 / rate
        return {a.instance_id for a in self.accounts if a.instance_id in self.in_use}


def four() -> World:
    return World(*(make_account(f"i{n}", price=1.0 + n) for n in range(4)))


def test_the_first_request_finds_the_cheapest_in_use() -> None:
    world = World(make_account("dear", price=3.0), make_account("cheap", price=1.0), make_account("mean", price=2.0))

    world.in_use.review(world.accounts, world.load, 0.0)

    assert [a.instance_id for a in world.accounts if a.instance_id in world.in_use] == ["cheap"]


def test_a_load_that_the_cheapest_carry_leaves_the_others_unused() -> None:
    assert four().play(rate=7.5, seconds=100.0) == {"i0"}
    assert four().play(rate=15.0, seconds=100.0) == {"i0", "i1"}


def test_what_counts_is_the_price_of_the_work() -> None:
    """The fast one costs more an hour and less a token."""
    world = World(make_account("slow", speed=0.5, price=1.0), make_account("fast", speed=4.0, price=4.0))

    assert world.play(rate=20.0, seconds=100.0) == {"fast"}


def test_an_instance_that_is_needed_no_more_is_left_after_a_while() -> None:
    world = four()
    assert len(world.play(rate=22.0, seconds=60.0)) == 3

    assert len(world.play(rate=3.0, seconds=HOLD_S / 2)) == 3
    assert world.play(rate=3.0, seconds=HOLD_S + 30.0) == {"i0"}


def test_a_load_at_the_edge_does_not_flap() -> None:
    """Once the second is in use, a load that the first would just carry keeps it."""
    world = four()
    world.play(rate=8.5, seconds=60.0)

    assert world.play(rate=7.9, seconds=200.0) == {"i0", "i1"}


def test_a_request_that_needs_another_instance_takes_it_into_use() -> None:
    world = World(make_account("cheap"), make_account("dear", price=9.0))
    world.play(rate=1.0, seconds=1.0)

    world.in_use.take(world.accounts[1], world.now, in_time=True)

    assert "dear" in world.in_use


def test_one_request_in_two_hundred_may_miss_its_targets() -> None:
    world = four()
    world.play(rate=1.0, seconds=1.0)
    excuses = [world.in_use.excuses]
    for _ in range(201):
        world.in_use.take(world.accounts[0], 1.0, in_time=True)
    excuses.append(world.in_use.excuses)

    world.in_use.take(world.accounts[0], 1.0, in_time=False)
    excuses.append(world.in_use.excuses)

    assert excuses == [False, True, False]


def test_an_instance_that_is_gone_is_not_counted_on() -> None:
    world = four()
    world.play(rate=7.0, seconds=20.0)

    world.in_use.review(world.accounts[1:], world.load, 20.0)

    assert "i1" in world.in_use
