"""Which instances a load needs: the cheapest that carry it, held for a while."""

from __future__ import annotations

from typing import Any

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.offered_load import OfferedLoad
from scheduler_svc.domain.objectives.instances_in_use import HOLD_S, LESSON_S, YOUNG_S, InstancesInUse
from scheduler_svc.domain.objectives.peak_load import MEMORY_S
from scheduler_svc.domain.prediction.pace import Pace
from tests.contract.policies.modelled_fleet import make_facts
from tests.unit.domain.test_ledger import make_reservation


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
    assert four().play(rate=6.0, seconds=100.0) == {"i0"}
    assert four().play(rate=12.0, seconds=100.0) == {"i0", "i1"}


def test_what_counts_is_the_price_of_the_work() -> None:
    """The fast one costs more an hour and less a token."""
    world = World(make_account("slow", speed=0.5, price=1.5), make_account("fast", speed=4.0, price=4.0))

    assert world.play(rate=20.0, seconds=100.0) == {"fast"}


def test_an_instance_that_is_needed_no_more_is_left_once_the_peak_is_long_ago() -> None:
    world = four()
    assert len(world.play(rate=20.0, seconds=60.0)) == 3

    assert len(world.play(rate=3.0, seconds=MEMORY_S - 60.0)) == 3
    assert world.play(rate=3.0, seconds=60.0 + HOLD_S + 30.0) == {"i0"}


def test_a_short_peak_keeps_in_use_what_the_next_one_needs() -> None:
    """Bursts of 5 s come every 25 s: the mean load is what the first instance carries."""
    world = four()
    world.play(rate=4.0, seconds=60.0)

    for _ in range(4):
        world.play(rate=40.0, seconds=5.0)
        assert len(world.play(rate=4.0, seconds=20.0)) == 2


def test_a_load_at_the_edge_does_not_flap() -> None:
    """Once the second is left, a load that the first can just carry does not take it again."""
    world = four()
    assert world.play(rate=9.0, seconds=60.0) == {"i0", "i1"}

    seen = [world.play(rate=rate, seconds=100.0) for rate in (7.5, 8.5, 7.5, 8.5)]

    assert seen == [{"i0"}] * 4


def test_a_load_that_grows_a_little_takes_nothing_more() -> None:
    """It is more than the instance is meant to carry in a peak, and nobody is late."""
    world = four()
    world.play(rate=7.5, seconds=60.0)

    assert world.play(rate=9.0, seconds=200.0) == {"i0"}


def test_a_load_that_grows_much_takes_another_though_nobody_is_late() -> None:
    world = four()
    world.play(rate=7.5, seconds=60.0)

    assert world.play(rate=11.0, seconds=60.0) == {"i0", "i1"}


def test_of_unequal_instances_the_cheapest_set_is_kept() -> None:
    """The dearest is needed, the second dearest is not: instances are left out for what the others cost together."""
    world = World(
        make_account("a", speed=2.0, price=7.0),
        make_account("b", speed=1.6, price=5.0),
        make_account("c", speed=1.0, price=2.2),
        make_account("d", speed=0.8, price=1.8),
    )

    assert world.play(rate=28.0, seconds=100.0) == {"a", "c", "d"}


def test_one_that_nobody_tried_is_taken_to_do_as_much_for_its_price_as_the_others() -> None:
    """The dear one would seem to do no more than the cheap one, which was tried."""
    cheap, dear = make_account("cheap", price=1.0), make_account("dear", price=4.0)
    mean = make_account("mean", price=4.5)
    cheap.is_tried = True
    world = World(cheap, dear, mean)

    assert world.play(rate=20.0, seconds=20.0) == {"cheap", "dear"}


def test_misses_teach_how_much_the_instances_carry() -> None:
    """Where a request had to go to another instance, the same load is spread over more of them for good."""
    world = four()
    assert world.play(rate=7.5, seconds=60.0) == {"i0"}

    world.in_use.take(world.accounts[3], world.accounts, world.now, risk=0.0)

    assert world.play(rate=7.5, seconds=2.0) == {"i0", "i1", "i3"}
    assert world.play(rate=7.5, seconds=HOLD_S + 30.0) == {"i0", "i1"}


def test_what_happens_to_the_first_requests_of_a_load_teaches_nothing() -> None:
    world = four()
    world.play(rate=7.5, seconds=YOUNG_S / 2)

    world.in_use.take(world.accounts[3], world.accounts, world.now, risk=0.0)
    world.accounts[0].late += 5

    assert world.play(rate=7.5, seconds=HOLD_S + 60.0) == {"i0"}


def test_one_that_was_left_is_paid_for_the_time_between_as_well() -> None:
    """Of two that would do, the one that was never used costs more an hour and less in all."""
    world = World(*(make_account(f"i{n}", price=price) for n, price in enumerate((1.0, 2.0, 2.4))))
    world.play(rate=4.0, seconds=60.0)
    assert world.play(rate=14.0, seconds=60.0) == {"i0", "i1"}
    assert world.play(rate=4.0, seconds=MEMORY_S + HOLD_S + 100.0) == {"i0"}

    assert world.play(rate=14.0, seconds=60.0) == {"i0", "i2"}


def test_a_request_that_needs_another_instance_takes_it_into_use() -> None:
    world = World(make_account("cheap"), make_account("dear", price=9.0))
    world.play(rate=1.0, seconds=1.0)

    world.in_use.take(world.accounts[1], world.accounts, world.now, risk=0.0)

    assert "dear" in world.in_use


def test_three_requests_in_four_hundred_may_miss_their_targets() -> None:
    world = four()
    world.play(rate=1.0, seconds=1.0)
    excuses = [world.in_use.excuses]
    for _ in range(134):
        world.in_use.take(world.accounts[0], world.accounts, 1.0, risk=0.0)
    excuses.append(world.in_use.excuses)

    world.in_use.take(world.accounts[0], world.accounts, 1.0, risk=1.0)
    excuses.append(world.in_use.excuses)

    assert excuses == [False, True, False]


def test_an_instance_that_is_gone_is_not_counted_on() -> None:
    world = four()
    world.play(rate=7.0, seconds=20.0)

    world.in_use.review(world.accounts[1:], world.load, 20.0)

    assert "i1" in world.in_use


def test_requests_that_finish_late_teach_it_too() -> None:
    world = four()
    assert world.play(rate=7.5, seconds=60.0) == {"i0"}

    world.accounts[0].late += 1

    assert world.play(rate=7.5, seconds=2.0) == {"i0", "i1"}


def test_less_than_half_of_the_late_requests_allowed_teach_nothing() -> None:
    world = four()
    for _ in range(60):
        world.play(rate=7.5, seconds=1.0)
        for _ in range(20):
            world.in_use.take(world.accounts[0], world.accounts, world.now, risk=0.0)

    world.accounts[0].late += 3
    spared = world.play(rate=7.5, seconds=2.0)
    world.accounts[0].late += 2

    assert (spared, world.play(rate=7.5, seconds=2.0)) == ({"i0"}, {"i0", "i1"})


def test_what_finished_late_before_a_change_teaches_nothing_more() -> None:
    world = four()
    world.play(rate=7.5, seconds=60.0)
    world.accounts[0].late += 1
    world.play(rate=7.5, seconds=2.0)

    world.accounts[0].late += 20

    assert world.play(rate=7.5, seconds=LESSON_S - 5.0) == {"i0", "i1"}


def test_where_all_speeds_are_known_the_cheapest_set_is_in_use_from_the_start() -> None:
    """In order of the price of their work all four would be taken, the dear one last."""
    world = World(
        make_account("a", speed=2.0, price=5.0),
        make_account("b", speed=1.0, price=2.4),
        make_account("c", speed=0.6, price=1.4),
        make_account("d", speed=0.5, price=1.0),
    )
    for account in world.accounts:
        account.is_tried = True

    assert world.play(rate=24.0, seconds=5.0 + HOLD_S) == {"a", "c", "d"}


def test_a_steady_height_asks_for_no_peak_above_it() -> None:
    """After the load has doubled for a minute, its peaks are above what is usual, which is less."""
    world = four()
    world.play(rate=8.0, seconds=MEMORY_S)

    assert len(world.play(rate=14.0, seconds=60.0)) == 2


def test_instances_that_cannot_serve_a_request_are_needed_all_the_same() -> None:
    """Requests for an adapter that the dearest holds alone."""
    accounts = Accounts(four().accounts)
    world = World(*accounts)
    world.play(rate=4.0, seconds=YOUNG_S + LESSON_S)
    holder = accounts.only("i3")

    world.in_use.review(holder, world.load, world.now)
    world.in_use.take(holder[0], holder, world.now, risk=0.0)

    assert world.play(rate=4.0, seconds=5.0) == {"i0", "i3"}
    assert world.play(rate=4.0, seconds=HOLD_S + 5.0) == {"i0"}


def test_nobody_waits_for_prompts_that_are_long_overdue() -> None:
    world = four()
    account = world.accounts[0]
    world.play(rate=4.0, seconds=1.0)
    for number in (1, 2, 3):
        reservation = make_reservation(prompt=4_000)
        reservation.attempt_number = number
        account.enter(reservation, world.now)
    assert account.prefill_full
    accounts = Accounts(world.accounts)
    due = account.pending.busy_until

    soon = [[a.instance_id for a in world.in_use.soon_with_capacity(accounts, 10, due + late)] for late in (0.1, 60.0)]

    assert soon == [["i0"], []]
