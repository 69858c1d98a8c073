"""Whatever a policy's code does wrong ends one request at most, leaves nothing reserved and puts fifo in force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.errors import PolicyFailed
from scheduler_svc.domain.objectives.earliest_finish import EarliestFinish
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.ordering.base import Ordering
from scheduler_svc.domain.ordering.fifo import Fifo
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.policies.governor import Signals
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.waiting_request import WaitingRequest
from tests.contract.policies.modelled_fleet import make_request, make_scheduler


class Revises(Fifo):
    """Gives a key that is no finite number when a request comes to the head."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        return self._key  # type: ignore[no-any-return]


class Leaves(EarliestFinish):
    """Leaves a part of its choice out."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        self._parts = parts

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        choice = super().choose(demand, accounts, now)
        for name, value in self._parts.items():
            setattr(choice, name, value)
        return choice


class SaysNoReserve:
    """Has no ``reserved_slots``."""

    choose = EarliestFinish.choose


class FollowsNone:
    """A governor that begins with a policy that there is not."""

    first = "no such policy"
    follows = ("fifo",)

    def decide(self, signals: Signals, current: str, now: float) -> None:
        return None


def scheduler_of(ordering: Ordering | None = None, objective: Any = None, governor: Any = None) -> Scheduler:
    def make(settings: SchedulerSettings) -> Policy:
        if governor is not None:
            return Policy(name="bad", summary="", ordering=Fifo(), objective=EarliestFinish(), governor=governor)
        return Policy(name="bad", summary="", ordering=ordering or Fifo(), objective=objective or EarliestFinish())

    catalogue = PolicyCatalogue()
    catalogue.add("bad", make)
    return make_scheduler("bad", instances=1, policies=catalogue)


@pytest.mark.parametrize("key", [float("nan"), float("inf"), "late"])
def test_a_revised_key_that_is_no_finite_number(key: Any) -> None:
    scheduler = scheduler_of(Revises(key))
    scheduler.enqueue(make_request("bad"), 0.0)
    scheduler.enqueue(make_request("good"), 0.0)

    decisions = scheduler.schedule(0.0) + scheduler.schedule(0.0)

    assert [key.request_id for key, _ in scheduler.take_policy_failures()] == ["bad"]
    assert [d.key.request_id for d in decisions] == ["good"]
    assert scheduler.policy == "fifo"


@pytest.mark.parametrize("part", ["remarks", "rejected"])
def test_a_choice_that_lacks_a_part_reserves_nothing(part: str) -> None:
    scheduler = scheduler_of(objective=Leaves(**{part: None}))
    scheduler.enqueue(make_request("bad"), 0.0)

    assert not scheduler.schedule(0.0)

    assert len(scheduler.take_policy_failures()) == 1
    assert scheduler.live_attempts() == 0


def test_an_objective_that_fails_for_a_quarantined_request() -> None:
    scheduler = scheduler_of(objective=SaysNoReserve())
    scheduler.enqueue(make_request("bad"), 0.0, alone=True)

    assert not scheduler.schedule(0.0)

    assert len(scheduler.take_policy_failures()) == 1


def test_a_governor_that_begins_with_no_policy() -> None:
    scheduler = scheduler_of(governor=FollowsNone())

    with pytest.raises(PolicyFailed):
        scheduler.enqueue(make_request("bad"), 0.0)
    scheduler.enqueue(make_request("good"), 0.0)

    assert [d.key.request_id for d in scheduler.schedule(0.0)] == ["good"]
    assert scheduler.policy == "fifo"
