"""Instances take turns to be free of prompts of other classes, while CRITICAL requests come under ``priority``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.capacity.reservation import Reservation
from scheduler_svc.domain.fleet.quiet_instances import CRITICAL_MEMORY_S, QuietInstances
from scheduler_svc.domain.prediction.pace import CPU_PRIOR, GPU_PRIOR
from scheduler_svc.domain.request import Priority, RequestKey
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import (
    MODEL,
    ModelledFleet,
    add_instance,
    make_facts,
    make_request,
    make_scheduler,
)
from tests.unit.domain.test_ledger import make_reservation


class Fleet:
    """Instances a, b, c ... with any number of slots, and their turns."""

    def __init__(self, names: str) -> None:
        self.of = {name: self._account(name) for name in names}
        self.accounts = Accounts(self.of.values())
        self.ledger = Ledger()
        self.turns = QuietInstances()

    @staticmethod
    def _account(name: str) -> Account:
        account = Account(name)
        account.open(make_facts(max_running=64, kv_capacity_tokens=10_000_000), GPU_PRIOR)
        return account

    def quiet(self, count: int = 1) -> str:
        """Take turns; return the names of those that are quiet."""
        self.turns.take_turns(self.accounts, count)
        return "".join(name for name, account in self.of.items() if account.quiet)

    def start(self, name: str, *, critical: bool = False, prefilled: bool = True) -> Reservation:
        key = RequestKey(tenant="t", request_id="r")
        reservation = make_reservation(key=key, instance_id=name, critical=critical)
        self.ledger.enter(self.of[name], reservation, 0.0)
        if prefilled:
            self.ledger.first_token(reservation, 0.0)
        return reservation

    def end(self, *reservations: Reservation) -> None:
        for each in reservations:
            self.ledger.release(each.attempt_number, 1.0)


def test_the_next_one_gets_no_prompts_once_three_quarters_are_left_and_is_quiet_once_its_own_are_done() -> None:
    fleet = Fleet("abc")
    running = [fleet.start("a") for _ in range(8)]
    pending = fleet.start("b", prefilled=False)
    assert fleet.quiet() == "a"

    fleet.end(running[0])
    assert fleet.quiet() == "a"

    fleet.end(running[1])
    assert fleet.quiet() == "ab", "b still has a prompt to compute"

    fleet.ledger.first_token(pending, 1.0)
    assert fleet.quiet() == "b"


def test_a_turn_is_over_once_half_are_left_though_the_next_one_has_prompts() -> None:
    fleet = Fleet("abc")
    running = [fleet.start("a") for _ in range(8)]
    fleet.start("b", prefilled=False)
    fleet.quiet()

    fleet.end(*running[:3])
    assert fleet.quiet() == "ab"

    fleet.end(running[3])
    assert fleet.quiet() == "b"


def test_every_instance_has_its_turn() -> None:
    fleet = Fleet("abc")
    running = {name: fleet.start(name) for name in "abc"}
    seen = fleet.quiet()
    for _ in range(3):
        name = seen[-1]
        fleet.end(running[name])
        seen += fleet.quiet()
        running[name] = fleet.start(name)

    assert seen == "abca"


def test_critical_requests_do_not_end_or_prolong_a_turn() -> None:
    fleet = Fleet("ab")
    other = fleet.start("a")
    urgent = [fleet.start("a", critical=True) for _ in range(4)]
    assert fleet.quiet() == "a"

    fleet.end(*urgent)
    assert fleet.quiet() == "a"

    fleet.start("a", critical=True, prefilled=False)
    fleet.end(other)
    assert fleet.quiet() == "b"


def test_an_instance_that_ran_nothing_stays_quiet_while_another_takes_prompts() -> None:
    fleet = Fleet("ab")
    assert [fleet.quiet() for _ in range(3)] == ["a", "a", "a"]

    while fleet.of["b"].prompt_limit_leaving_reserve > 0:
        fleet.start("b", prefilled=False)

    assert fleet.quiet() == "b"


def test_an_instance_that_left_gives_its_turn_to_the_next() -> None:
    fleet = Fleet("abc")
    fleet.start("a")
    assert fleet.quiet() == "a"

    fleet.accounts = Accounts(fleet.of[name] for name in "bc")

    assert fleet.quiet() == "b"


def test_a_follower_that_left_gives_its_turn_to_the_next() -> None:
    fleet = Fleet("abc")
    running = [fleet.start("a") for _ in range(4)]
    fleet.start("b", prefilled=False)
    fleet.start("c", prefilled=False)
    fleet.quiet()
    fleet.end(running[0])
    assert fleet.quiet() == "ab"

    fleet.accounts = Accounts(fleet.of[name] for name in "ac")

    assert fleet.quiet() == "ac"


def test_an_instance_without_a_slot_for_a_critical_request_has_no_turn() -> None:
    fleet = Fleet("ab")
    while fleet.of["a"].free_slots > 0:
        fleet.start("a")

    assert fleet.quiet() == "b"


def test_an_instance_that_is_kept_for_a_quarantined_request_has_no_turn() -> None:
    fleet = Fleet("ab")
    fleet.of["a"].close(True)

    assert fleet.quiet() == "b"


def test_quiet_instances_give_way_where_no_other_takes_a_request() -> None:
    fleet = Fleet("abc")
    running = [fleet.start("a") for _ in range(4)]
    fleet.start("b", prefilled=False)
    fleet.quiet()
    fleet.end(running[0])
    assert fleet.quiet() == "ab", "b follows a"
    able = fleet.accounts

    assert not fleet.turns.give_way(able), "c takes it"
    assert not fleet.turns.give_way(able.only("c"))
    assert fleet.turns.give_way(able.only("b"))
    assert [fleet.of[name].quiet for name in "abc"] == [True, False, False]

    fleet.of["c"].close(True)
    assert fleet.turns.give_way(able.less(able.only("b")))
    assert not any(account.quiet for account in able)
    assert not fleet.turns.give_way(able.only("a"))
    assert not fleet.turns.give_way(able.only("c"))


def test_all_are_released_at_once() -> None:
    fleet = Fleet("abcd")
    running = [fleet.start("a") for _ in range(4)]
    fleet.start("b")
    fleet.start("c", prefilled=False)
    assert [fleet.quiet(2), fleet.quiet(2)] == ["a", "ab"]
    fleet.end(running[0])
    assert [fleet.quiet(2), fleet.quiet(2)] == ["abc", "abc"]

    assert fleet.quiet(0) == ""


# --- in the scheduler -------------------------------------------------------------------------------


def quiet_ones(scheduler: Scheduler) -> int:
    return sum(account.quiet for account in scheduler._registry.pool(MODEL).accounts)


def placed(scheduler: Scheduler, name: str, priority: Priority, now: float = 0.0) -> None:
    scheduler.enqueue(make_request(name, priority=priority, arrived_at=now), now)
    [decision] = scheduler.schedule(now)
    scheduler.first_token(decision.attempt_number, now)


def test_one_of_eight_is_quiet_once_a_critical_request_came() -> None:
    scheduler = make_scheduler("priority", instances=8)
    placed(scheduler, "normal", Priority.NORMAL)
    assert quiet_ones(scheduler) == 0

    placed(scheduler, "critical", Priority.CRITICAL)

    assert quiet_ones(scheduler) == 1


def test_a_fleet_of_unequal_speeds_has_none() -> None:
    """A turn of the fastest would cost a fifth of such a fleet."""
    scheduler = make_scheduler("priority", instances=8)
    placed(scheduler, "critical", Priority.CRITICAL)
    fast = replace(CPU_PRIOR, prefill_token_s=CPU_PRIOR.prefill_token_s / 3, base_s=CPU_PRIOR.base_s / 3)
    scheduler.instance("i3").account.learn(fast)

    placed(scheduler, "another", Priority.CRITICAL, now=1.0)

    assert quiet_ones(scheduler) == 0


def test_fewer_instances_than_eight_have_none() -> None:
    scheduler = make_scheduler("priority", instances=7)
    placed(scheduler, "critical", Priority.CRITICAL)
    assert quiet_ones(scheduler) == 0

    scheduler = make_scheduler("priority", instances=7, instances_per_quiet_one=3)
    placed(scheduler, "critical", Priority.CRITICAL)
    placed(scheduler, "another", Priority.CRITICAL)
    assert quiet_ones(scheduler) == 2


def test_one_of_one_instance_cannot_be_quiet() -> None:
    with pytest.raises(ValueError, match="instances_per_quiet_one: 1 would leave other classes no instance"):
        make_scheduler("priority", instances_per_quiet_one=1)


def test_a_minute_without_a_critical_request_releases_it() -> None:
    scheduler = make_scheduler("priority", instances=8)
    placed(scheduler, "critical", Priority.CRITICAL)

    placed(scheduler, "soon", Priority.NORMAL, CRITICAL_MEMORY_S - 1)
    assert quiet_ones(scheduler) == 1

    placed(scheduler, "later", Priority.NORMAL, CRITICAL_MEMORY_S)
    assert quiet_ones(scheduler) == 0


def test_another_policy_releases_it() -> None:
    scheduler = make_scheduler("priority", instances=8)
    placed(scheduler, "critical", Priority.CRITICAL)
    assert quiet_ones(scheduler) == 1

    scheduler.set_policy("fifo", 0.0, "a test")
    placed(scheduler, "normal", Priority.NORMAL)

    assert quiet_ones(scheduler) == 0


def test_none_is_quiet_while_others_wait_for_capacity_for_more_than_half_of_their_target() -> None:
    scheduler = make_scheduler("priority", instances=8)
    placed(scheduler, "critical", Priority.CRITICAL)
    for n in range(2_000):
        scheduler.enqueue(make_request(n), 0.0)
    scheduler.schedule(0.0)
    assert scheduler.waiting(MODEL) > 0

    for now, quiet in ((2.5, 1), (2.6, 0)):
        scheduler.enqueue(make_request(f"at {now}", arrived_at=now), now)
        scheduler.schedule(now)
        assert quiet_ones(scheduler) == quiet, f"at {now} s of a target of 5 s"


def test_it_stays_quiet_while_a_request_waits_that_no_instance_can_serve() -> None:
    scheduler = make_scheduler("priority", instances=8)
    placed(scheduler, "critical", Priority.CRITICAL)
    scheduler.enqueue(make_request("unservable", adapter="unknown"), 0.0)
    assert not scheduler.schedule(0.0)

    placed(scheduler, "later", Priority.NORMAL, 10.0)

    assert scheduler.waiting(MODEL) == 1
    assert quiet_ones(scheduler) == 1


def test_other_classes_leave_the_quiet_instance_alone_and_say_so() -> None:
    scheduler = make_scheduler("priority", instances=8)
    placed(scheduler, "critical", Priority.CRITICAL)
    [quiet] = [a.instance_id for a in scheduler._registry.pool(MODEL).accounts if a.quiet]

    for n in range(16):
        scheduler.enqueue(make_request(n), 0.0)
    decisions = scheduler.schedule(0.0)

    assert len(decisions) == 16
    assert quiet not in {decision.instance_id for decision in decisions}
    reasons = {c.filter_reason for d in decisions for c in d.candidates if c.instance_id == quiet}
    assert reasons == {"what it has free is reserved for CRITICAL"}


def test_an_aged_request_gets_its_turn_in_a_fleet_that_critical_ones_overload() -> None:
    scheduler = make_scheduler("priority", ageing_s_per_class=1.0)
    for n in range(8):
        add_instance(scheduler, f"i{n}", facts=make_facts(max_running=2))
    fleet = ModelledFleet(scheduler)
    for n in range(int(30 / 0.03)):  # twice what the fleet can do
        fleet.arrive(make_request(n, prompt=20, output=100, arrived_at=n * 0.03, priority=Priority.CRITICAL))
    fleet.arrive(make_request("aged", output=100, arrived_at=1.0, priority=Priority.BACKGROUND))

    fleet.run(until=40)

    # It is due when those that arrived within 8 s of it are done, which takes twice as long as they took to come.
    assert fleet.waits()[RequestKey(tenant="t", request_id="aged")] < 2 * (8 + 1) + 3
