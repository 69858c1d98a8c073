"""A policy that decides beside the one in force: what it may say, and that nothing follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.errors import UnknownPolicy
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.placement.shadow_policy import ShadowReport
from scheduler_svc.domain.policies.builtin import PolicyFactory, make_fifo
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.settings import SchedulerSettings
from tests.contract.policies.modelled_fleet import (
    ModelledFleet,
    add_instance,
    make_facts,
    make_request,
    make_scheduler,
)


class LastInstance:
    """Always chooses the last instance offered."""

    reserved_slots = 0

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        return Choice(index=len(accounts) - 1, why="the last")


class Broken:
    """Raises from the ``after``-th choice on."""

    reserved_slots = 0

    def __init__(self, after: int) -> None:
        self._left = after

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        self._left -= 1
        if self._left <= 0:
            raise ZeroDivisionError("no instance is good enough")
        return Choice(index=0, why="the first")


def with_objective(name: str, objective: LastInstance | Broken) -> PolicyFactory:
    def make(settings: SchedulerSettings) -> Policy:
        return replace(make_fifo(settings), name=name, objective=objective)

    return make


def scheduler_with(*, instances: int = 2, policy: str = "fifo") -> Scheduler:
    policies = PolicyCatalogue()
    policies.add("last", with_objective("last", LastInstance()))
    policies.add("broken", with_objective("broken", Broken(3)))
    return make_scheduler(policy, instances=instances, policies=policies)


def report_of(scheduler: Scheduler) -> ShadowReport:
    report = scheduler.shadow
    assert report is not None
    return report


def place(scheduler: Scheduler, count: int, now: float = 0.0) -> list[str]:
    """Let requests come one by one; returns where they went."""
    where = []
    for n in range(count):
        scheduler.admit(make_request(f"{now}-{n}", arrived_at=now), now)
        where += [decision.instance_id for decision in scheduler.schedule(now)]
    return where


def test_there_is_none_unless_it_is_asked_for() -> None:
    assert scheduler_with().shadow is None


def test_it_changes_nothing() -> None:
    alone, watched = scheduler_with(instances=3), scheduler_with(instances=3)
    watched.set_shadow("last", 0.0)
    assert place(watched, 6) == place(alone, 6)
    assert [i.account.live for i in watched.instances()] == [i.account.live for i in alone.instances()]


def test_the_same_policy_always_agrees() -> None:
    scheduler = scheduler_with(instances=3)
    scheduler.set_shadow("fifo", 0.0)
    place(scheduler, 5)
    report = report_of(scheduler)
    assert (report.policy, report.compared, report.same) == ("fifo", 5, 5)
    assert report.in_force == report.shadow
    assert report.in_force.finish_s > report.in_force.first_token_s > 0


def test_another_choice_is_predicted_where_it_would_have_been() -> None:
    scheduler = scheduler_with(instances=0)
    add_instance(scheduler, "a", price_per_hour=1.0)
    add_instance(scheduler, "b", price_per_hour=3.0)
    scheduler.set_shadow("last", 0.0)
    assert place(scheduler, 1) == ["a"]
    report = report_of(scheduler)
    assert (report.compared, report.same) == (1, 0)
    assert report.shadow.cost == pytest.approx(3 * report.in_force.cost)
    assert report.shadow.finish_s == pytest.approx(report.in_force.finish_s)


def test_an_exception_switches_it_off_and_touches_no_request() -> None:
    scheduler = scheduler_with()
    scheduler.set_shadow("broken", 0.0)
    assert len(place(scheduler, 5)) == 5
    report = report_of(scheduler)
    assert report.compared == 2
    assert report.failure == "ZeroDivisionError: no instance is good enough"


def test_it_can_be_switched_on_again_after_it_failed() -> None:
    scheduler = scheduler_with()
    scheduler.set_shadow("broken", 0.0)
    place(scheduler, 4)
    assert scheduler.set_shadow("last", 1.0) == "broken"
    place(scheduler, 2, now=1.0)
    report = report_of(scheduler)
    assert (report.policy, report.failure, report.compared, report.since) == ("last", "", 2, 1.0)


def test_an_empty_name_ends_it() -> None:
    scheduler = scheduler_with()
    scheduler.set_shadow("last", 0.0)
    assert scheduler.set_shadow("", 1.0) == "last"
    assert scheduler.shadow is None
    assert scheduler.set_shadow("", 1.0) == ""


def test_an_unknown_name_changes_nothing() -> None:
    scheduler = scheduler_with()
    scheduler.set_shadow("last", 0.0)
    with pytest.raises(UnknownPolicy):
        scheduler.set_shadow("best", 1.0)
    assert report_of(scheduler).policy == "last"


def test_another_policy_in_force_starts_the_comparison_over() -> None:
    scheduler = scheduler_with()
    scheduler.set_shadow("last", 0.0)
    place(scheduler, 2)
    scheduler.set_policy("priority", 1.0, "")
    assert (report_of(scheduler).compared, report_of(scheduler).since) == (0, 1.0)


def test_an_instance_that_the_caller_prefers_is_no_ones_choice() -> None:
    scheduler = scheduler_with()
    scheduler.set_shadow("last", 0.0)
    scheduler.admit(make_request("r", preferred_instance="i0"), 0.0)
    scheduler.schedule(0.0)
    report = report_of(scheduler)
    assert (report.compared, report.not_compared) == (0, 1)


def test_split_requests_are_not_compared() -> None:
    scheduler = make_scheduler(pd=PdSettings(mode=SplitMode.ALWAYS))
    connected = make_facts(kv_connector="c", compatibility_key="k")
    for name in ("a", "b"):
        add_instance(scheduler, name, facts=connected)
    scheduler.set_role("a", InstanceRole.PREFILLING)
    scheduler.set_role("b", InstanceRole.DECODING)
    scheduler.renew_pairs()
    for pair in scheduler.pairs():
        scheduler.handed_over(pair, 0.01)
    scheduler.set_shadow("priority", 0.0)
    scheduler.admit(make_request("r"), 0.0)
    [decision] = scheduler.schedule(0.0)
    assert decision.prefill is not None
    report = report_of(scheduler)
    assert (report.compared, report.not_compared) == (0, 1)


def test_a_governing_policy_follows_the_load_in_the_shadow_too() -> None:
    scheduler = scheduler_with(instances=0)
    add_instance(scheduler, "a", price_per_hour=1.0)
    add_instance(scheduler, "b", price_per_hour=9.0)
    scheduler.set_shadow("adaptive", 0.0)
    assert report_of(scheduler).delegate == "fifo"
    fleet = ModelledFleet(scheduler)
    for n in range(40):
        fleet.arrive(make_request(n, arrived_at=n * 0.2))
    fleet.run(until=8.0)
    assert scheduler.delegate == ""
    assert report_of(scheduler).delegate == "cost_optimized"
