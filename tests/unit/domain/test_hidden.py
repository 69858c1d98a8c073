"""Those who are held back hide nobody behind them, and a look at those costs a bounded time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.least_target_used import LeastTargetUsed
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.scheduler import Scheduler, SchedulerSettings
from scheduler_svc.domain.waiting_request import WaitingRequest
from tests.contract.policies.modelled_fleet import (
    MEASURED,
    MODEL,
    add_instance,
    make_facts,
    make_load,
    make_request,
    make_scheduler,
)

DEPTH = SchedulerSettings().backfill_depth
NOW = 1.0
HELD = 5 * DEPTH


def with_a_tight_stream(policy: str = "slo_aware", *, held: int = 0) -> Scheduler:
    """Make a scheduler with an instance on which one more would make a stream late, and requests held back for it."""
    scheduler = make_scheduler(policy)
    add_instance(scheduler, "i0", facts=make_facts(max_running=64, measured=MEASURED))
    scheduler.enqueue(make_request("tight", output=2_000, ttft_target_s=5.0, tpot_target_s=0.025), 0.0)
    (tight,) = scheduler.schedule(0.0)
    scheduler.first_token(tight.attempt_number, 0.2)
    for n in range(held):
        scheduler.enqueue(loose(n), NOW)
    return scheduler


def loose(name: object, **changes: Any) -> Any:
    return make_request(name, **{"arrived_at": NOW, **changes})


def test_the_first_that_is_held_back_is_told_what_for() -> None:
    scheduler = with_a_tight_stream(held=1)
    assert not placed(scheduler)
    view = scheduler.position(loose(0).key, NOW)
    assert view is not None
    assert view.because == "it is next; it waits until those who run on the instances are not late for it"


def placed(scheduler: Scheduler, now: float = NOW) -> list[str]:
    return [d.key.request_id for d in scheduler.schedule(now)]


def test_without_a_reason_to_go_they_all_wait() -> None:
    scheduler = with_a_tight_stream(held=HELD)

    assert placed(scheduler) == []
    assert scheduler.waiting(MODEL) == HELD


def test_one_that_began_elsewhere_goes_on_whoever_is_held_back_before_it() -> None:
    scheduler = with_a_tight_stream(held=HELD)
    moved = loose("moved", priority=Priority.LOW, output=400, ttft_target_s=30.0)
    scheduler.enqueue(moved, NOW, resumed=True, emitted_tokens=5)

    assert placed(scheduler) == ["moved"]


def test_one_that_has_waited_long_goes_whoever_is_held_back_before_it() -> None:
    scheduler = with_a_tight_stream(held=HELD)
    scheduler.enqueue(loose("old", priority=Priority.LOW, ttft_target_s=30.0, arrived_at=NOW - 16.0), NOW)

    assert placed(scheduler) == ["old"]


class Notes(LeastTargetUsed):
    """Notes whom it was asked about; one request may go at any time."""

    asked: list[str]

    def choose_only(self, demand: Demand, account: Account, now: float) -> Choice:
        return self.choose(demand, (account,), now)

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        name = demand.request.key.request_id
        self.asked.append(name)
        goes = name in ("tight", "goes")
        return Choice(
            index=0, why="", rule="" if goes else "held", scores={"none": [0.0] * len(accounts)}, waits=not goes
        )


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    """Have ``slo_aware`` note whom its objective was asked about."""
    from scheduler_svc.domain.policies import builtin

    noting = Notes({})
    noting.asked = []
    monkeypatch.setattr(builtin, "LeastTargetUsed", lambda *_: noting)
    return noting


def passes(scheduler: Scheduler, number: int) -> list[list[str]]:
    """Return whom each of some passes places."""
    found = []
    for n in range(number):
        now = round(NOW + 0.1 * n, 3)
        load = make_load(n + 2, running=1, unfinished=1, kv_used_tokens=1_000)
        scheduler.report("i0", load, now)
        found.append(placed(scheduler, now))
    return found


@pytest.mark.interpreted
def test_a_pass_looks_at_twice_the_depth_at_most(notes: Notes) -> None:
    scheduler = with_a_tight_stream(held=HELD)
    notes.asked.clear()

    assert placed(scheduler) == []
    assert len(notes.asked) == 1 + 2 * DEPTH, "the head, those behind it, and as many more"


@pytest.mark.interpreted
def test_each_has_its_turn_within_a_few_passes(notes: Notes) -> None:
    scheduler = with_a_tight_stream(held=HELD)
    scheduler.enqueue(loose("goes", arrived_at=NOW + 0.01), NOW)  # the last of them

    found = passes(scheduler, HELD // DEPTH)

    assert [each for each in found if each] == [["goes"]]


@pytest.mark.interpreted
def test_with_no_more_than_the_depth_nobody_is_asked_twice(notes: Notes) -> None:
    scheduler = with_a_tight_stream(held=1 + DEPTH)
    notes.asked.clear()

    placed(scheduler)

    assert notes.asked == [str(n) for n in range(1 + DEPTH)]


def head_of(scheduler: Scheduler) -> WaitingRequest:
    (pool,) = scheduler._registry.pools()
    assert pool.queue is not None
    head = pool.queue.head(NOW)
    assert head is not None
    return head


def test_a_wait_for_others_does_not_end_a_later_wait_for_a_faster_instance() -> None:
    scheduler = with_a_tight_stream(held=1)

    assert placed(scheduler) == []
    assert head_of(scheduler).waits_since is None
