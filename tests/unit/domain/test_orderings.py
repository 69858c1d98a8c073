"""Who goes next."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.targets import Targets
from tests.contract.policies.modelled_fleet import add_instance, make_facts, make_request, make_scheduler

C, H, N, L, B = Priority


def one_at_a_time(policy: str, **settings: Any) -> Scheduler:
    """One instance that runs one request and takes nothing more: the order of placements is the order of the queue."""
    scheduler = make_scheduler(policy, **settings)
    add_instance(scheduler, "i0", facts=make_facts(max_running=1))
    scheduler.enqueue(make_request("running", arrived_at=-1_000.0), 0.0)
    scheduler.enqueue(make_request("queued", arrived_at=-999.0), 0.0)
    assert len(scheduler.schedule(0.0)) == 2
    return scheduler


def order(scheduler: Scheduler, now: float) -> list[str]:
    """Ends what runs again and again until nobody waits."""
    placed = []
    attempt = 1
    while scheduler.waiting("tiny"):
        scheduler.release(attempt, now, output_tokens=None, finished=False)
        attempt += 1
        placed += [d.key.request_id for d in scheduler.schedule(now)]
    return placed


def enqueue(scheduler: Scheduler, request_id: str, arrived_at: float, **changes: Any) -> None:
    scheduler.enqueue(make_request(request_id, arrived_at=arrived_at, **changes), arrived_at)


def test_fifo_goes_by_arrival_whatever_the_class() -> None:
    scheduler = one_at_a_time("fifo")
    for n, priority in enumerate((B, N, C)):
        enqueue(scheduler, priority.name, n, priority=priority)

    assert order(scheduler, 3.0) == ["BACKGROUND", "NORMAL", "CRITICAL"]


@pytest.mark.parametrize("policy", ["fifo", "priority"])
def test_a_resumed_request_keeps_its_arrival(policy: str) -> None:
    scheduler = one_at_a_time(policy)
    for n in range(3):
        enqueue(scheduler, f"later{n}", 1.0 + n)
    scheduler.enqueue(make_request("resumed", arrived_at=0.5), 5.0, emitted_tokens=7, resumed=True)

    assert order(scheduler, 6.0)[0] == "resumed"


def test_priority_goes_by_class_and_by_arrival_within() -> None:
    scheduler = one_at_a_time("priority")
    for n, priority in enumerate((B, N, L, C, H, C)):
        enqueue(scheduler, f"{priority.name}{n}", n, priority=priority)

    assert order(scheduler, 6.0) == ["CRITICAL3", "CRITICAL5", "HIGH4", "NORMAL1", "LOW2", "BACKGROUND0"]


def test_waiting_makes_up_for_class_at_the_stated_rate() -> None:
    scheduler = one_at_a_time("priority", ageing_s_per_class=10.0)
    enqueue(scheduler, "low", 0.0, priority=L)
    enqueue(scheduler, "high before 20 s", 19.9, priority=H)
    enqueue(scheduler, "high after 20 s", 20.1, priority=H)

    assert order(scheduler, 21.0) == ["high before 20 s", "low", "high after 20 s"]


def test_critical_requests_overtake_what_an_overload_let_wait_for_long() -> None:
    """A request of NORMAL is six classes behind: 60 s here."""
    scheduler = one_at_a_time("priority", ageing_s_per_class=10.0)
    enqueue(scheduler, "normal", 0.0, priority=N)
    enqueue(scheduler, "critical before 60 s", 59.9, priority=C)
    enqueue(scheduler, "critical after 60 s", 60.1, priority=C)

    assert order(scheduler, 61.0) == ["critical before 60 s", "normal", "critical after 60 s"]


def test_least_slack_goes_first() -> None:
    scheduler = one_at_a_time("slo_aware")
    enqueue(scheduler, "loose", 0.0, ttft_target_s=50.0)
    enqueue(scheduler, "tight", 1.0, ttft_target_s=20.0)
    enqueue(scheduler, "deadline", 2.0, deadline_at=30.0)

    assert order(scheduler, 3.0) == ["tight", "deadline", "loose"]


def test_a_longer_request_has_less_slack_to_the_same_deadline() -> None:
    scheduler = one_at_a_time("slo_aware")
    enqueue(scheduler, "short", 0.0, output=10, deadline_at=100.0)
    enqueue(scheduler, "long", 1.0, output=2_000, deadline_at=100.0)

    assert order(scheduler, 2.0) == ["long", "short"]


def test_without_targets_the_class_says_what_is_aimed_at() -> None:
    targets = {p: Targets(ttft_s=10.0 * p) for p in Priority}
    scheduler = one_at_a_time("slo_aware", default_targets=targets)
    for priority in (B, L, N, H, C):
        enqueue(scheduler, priority.name, 0.0, priority=priority)

    assert order(scheduler, 0.1) == ["CRITICAL", "HIGH", "NORMAL", "LOW", "BACKGROUND"]


def test_a_deadline_that_the_caller_did_not_state_is_no_target() -> None:
    scheduler = one_at_a_time("slo_aware")
    enqueue(scheduler, "background", 0.0, priority=B, deadline_at=10.0, deadline_stated=False)
    enqueue(scheduler, "normal", 0.0, priority=N, deadline_at=3_600.0, deadline_stated=False)

    assert order(scheduler, 0.1) == ["normal", "background"]


def test_one_that_can_no_longer_make_it_steps_behind_those_that_can() -> None:
    scheduler = one_at_a_time("slo_aware", late_delay_s=30.0)
    enqueue(scheduler, "late", 0.0, ttft_target_s=1.0)
    enqueue(scheduler, "in time", 0.0, ttft_target_s=20.0)
    enqueue(scheduler, "far off", 0.0, ttft_target_s=60.0)

    assert order(scheduler, 5.0) == ["in time", "late", "far off"], "and ahead of what is due 30 s later"


def test_late_ones_step_back_twice_as_far_each_time() -> None:
    """Under lasting overload they would otherwise be due again before those that can still make it."""
    scheduler = one_at_a_time("slo_aware", late_delay_s=30.0)
    enqueue(scheduler, "late", 0.0, ttft_target_s=1.0)
    enqueue(scheduler, "first", 5.0, ttft_target_s=20.0)
    late = make_request("late").key

    def due(now: float) -> str:
        scheduler._registry.pool("tiny").changed = True
        scheduler.schedule(now)
        return scheduler.position(late, now).ordering_key  # type: ignore[union-attr]

    assert due(5.0).endswith("due in 30.00 s")
    enqueue(scheduler, "second", 36.0, ttft_target_s=20.0)
    assert due(36.0).endswith("due in 60.00 s")
    enqueue(scheduler, "third", 97.0, ttft_target_s=20.0)
    assert due(97.0).endswith("due in 120.00 s")


def test_the_wait_inside_the_engine_counts_for_lateness() -> None:
    """An engine is free for one more, behind prompts of 0.6 s: one whose slack is less lets another go first."""
    scheduler = make_scheduler("slo_aware")
    add_instance(scheduler, "i0", facts=make_facts(max_running=64))
    scheduler.enqueue(make_request("long", prompt=3_000, arrived_at=0.0), 0.0)
    assert len(scheduler.schedule(0.0)) == 1
    enqueue(scheduler, "cannot", 0.0, ttft_target_s=0.4)
    enqueue(scheduler, "can", 0.0, ttft_target_s=20.0)

    assert [d.key.request_id for d in scheduler.schedule(0.0)] == ["can", "cannot"]


def test_the_ordering_decides_among_prompts_that_the_engine_could_only_queue() -> None:
    """Slots are free, but the engine has prompts for two steps: whoever comes last and is urgent still goes next."""
    scheduler = make_scheduler("slo_aware")
    add_instance(scheduler, "i0", facts=make_facts(max_running=64, max_batched_tokens=1_000))
    for n in range(20):
        enqueue(scheduler, f"loose{n}", 0.0, prompt=500, ttft_target_s=60.0)
    sent = [d.attempt_number for d in scheduler.schedule(0.0)]
    assert 4 <= len(sent) <= 5

    enqueue(scheduler, "urgent", 0.1, prompt=500, ttft_target_s=20.0)
    assert scheduler.schedule(0.1) == []
    view = scheduler.position(make_request("urgent").key, 0.1)
    assert view is not None
    assert view.because.startswith("instance i0 full: prompts of ")

    for number in sent[:2]:
        scheduler.first_token(number, 0.2)
    assert scheduler.schedule(0.2)[0].key.request_id == "urgent"


def test_a_switch_of_policy_gives_a_late_one_a_new_start() -> None:
    scheduler = one_at_a_time("slo_aware")
    enqueue(scheduler, "late", 0.0, ttft_target_s=1.0)
    late = make_request("late").key
    scheduler.schedule(5.0)
    scheduler._registry.pool("tiny").changed = True
    scheduler.schedule(5.0)
    assert "too late" in scheduler.position(late, 5.0).ordering_key  # type: ignore[union-attr]

    scheduler.set_policy("fifo", 6.0, "")
    scheduler.set_policy("slo_aware", 7.0, "")

    assert "slack -" in scheduler.position(late, 7.0).ordering_key  # type: ignore[union-attr]


def test_where_the_first_token_is_missed_the_deadline_still_counts() -> None:
    scheduler = one_at_a_time("slo_aware", late_delay_s=30.0)
    enqueue(scheduler, "both", 0.0, ttft_target_s=1.0, deadline_at=12.0)
    enqueue(scheduler, "in time", 0.0, ttft_target_s=20.0)
    enqueue(scheduler, "late", 0.0, ttft_target_s=1.0)

    assert order(scheduler, 5.0) == ["both", "in time", "late"]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("fifo", "arrival, 2.00 s ago"),
        ("priority", "class LOW (210 s behind CRITICAL), aged by 2.00 s"),
        ("slo_aware", "slack 27.9"),
        ("cost_optimized", "slack 27.9"),
    ],
)
def test_says_what_a_request_is_ordered_by(policy: str, words: str) -> None:
    scheduler = one_at_a_time(policy)
    enqueue(scheduler, "low", 1.0, priority=L)

    view = scheduler.position(make_request("low").key, 3.0)

    assert view is not None
    assert words in view.ordering_key
    scheduler.release(1, 3.0, output_tokens=None, finished=False)
    [decision] = scheduler.schedule(3.0)
    assert decision.reasons[-1].startswith(f"ordered by {words}")  # known when it runs, too
