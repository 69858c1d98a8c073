"""Who goes next."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler_svc.domain.core import SchedulingCore
from scheduler_svc.domain.request import Priority
from tests.contract.policies.modelled_fleet import add_instance, make_core, make_facts, make_request

C, H, N, L, B = Priority


def one_at_a_time(policy: str, **settings: Any) -> SchedulingCore:
    """One instance that runs one request and takes nothing more: the order of placements is the order of the queue."""
    core = make_core(policy, **settings)
    add_instance(core, "i0", facts=make_facts(max_running=1))
    core.enqueue(make_request("running", arrived_at=-1_000.0), 0.0)
    core.enqueue(make_request("queued", arrived_at=-999.0), 0.0)
    assert len(core.schedule(0.0)) == 2
    return core


def order(core: SchedulingCore, now: float) -> list[str]:
    """Ends what runs again and again until nobody waits."""
    placed = []
    attempt = 1
    while core.waiting("tiny"):
        core.release(attempt, now, output_tokens=None, finished=False)
        attempt += 1
        placed += [d.key.request_id for d in core.schedule(now)]
    return placed


def enqueue(core: SchedulingCore, request_id: str, arrived_at: float, **changes: Any) -> None:
    core.enqueue(make_request(request_id, arrived_at=arrived_at, **changes), arrived_at)


def test_fifo_goes_by_arrival_whatever_the_class() -> None:
    core = one_at_a_time("fifo")
    for n, priority in enumerate((B, N, C)):
        enqueue(core, priority.name, n, priority=priority)

    assert order(core, 3.0) == ["BACKGROUND", "NORMAL", "CRITICAL"]


@pytest.mark.parametrize("policy", ["fifo", "priority"])
def test_a_resumed_request_keeps_its_arrival(policy: str) -> None:
    core = one_at_a_time(policy)
    for n in range(3):
        enqueue(core, f"later{n}", 1.0 + n)
    core.enqueue(make_request("resumed", arrived_at=0.5), 5.0, emitted_tokens=7, resumed=True)

    assert order(core, 6.0)[0] == "resumed"


def test_priority_goes_by_class_and_by_arrival_within() -> None:
    core = one_at_a_time("priority")
    for n, priority in enumerate((B, N, L, C, H, C)):
        enqueue(core, f"{priority.name}{n}", n, priority=priority)

    assert order(core, 6.0) == ["CRITICAL3", "CRITICAL5", "HIGH4", "NORMAL1", "LOW2", "BACKGROUND0"]


def test_waiting_makes_up_for_class_at_the_stated_rate() -> None:
    core = one_at_a_time("priority", ageing_s_per_class=10.0)
    enqueue(core, "normal", 0.0, priority=N)
    enqueue(core, "critical before 20 s", 19.9, priority=C)
    enqueue(core, "critical after 20 s", 20.1, priority=C)

    assert order(core, 21.0) == ["critical before 20 s", "normal", "critical after 20 s"]


def test_least_slack_goes_first() -> None:
    core = one_at_a_time("slo_aware")
    enqueue(core, "loose", 0.0, ttft_target_s=50.0)
    enqueue(core, "tight", 1.0, ttft_target_s=20.0)
    enqueue(core, "deadline", 2.0, deadline_at=30.0)

    assert order(core, 3.0) == ["tight", "deadline", "loose"]


def test_a_longer_request_has_less_slack_to_the_same_deadline() -> None:
    core = one_at_a_time("slo_aware")
    enqueue(core, "short", 0.0, output=10, deadline_at=100.0)
    enqueue(core, "long", 1.0, output=2_000, deadline_at=100.0)

    assert order(core, 2.0) == ["long", "short"]


def test_without_targets_the_class_says_what_is_aimed_at() -> None:
    core = one_at_a_time("slo_aware")
    for priority in (B, L, N, H, C):
        enqueue(core, priority.name, 0.0, priority=priority)

    assert order(core, 0.1) == ["CRITICAL", "HIGH", "NORMAL", "LOW", "BACKGROUND"]


def test_a_deadline_that_the_caller_did_not_state_is_no_target() -> None:
    core = one_at_a_time("slo_aware")
    enqueue(core, "background", 0.0, priority=B, deadline_at=10.0, deadline_stated=False)
    enqueue(core, "normal", 0.0, priority=N, deadline_at=3_600.0, deadline_stated=False)

    assert order(core, 0.1) == ["normal", "background"]


def test_one_that_can_no_longer_make_it_steps_behind_those_that_can() -> None:
    core = one_at_a_time("slo_aware", late_delay_s=30.0)
    enqueue(core, "late", 0.0, ttft_target_s=1.0)
    enqueue(core, "in time", 0.0, ttft_target_s=20.0)
    enqueue(core, "far off", 0.0, ttft_target_s=60.0)

    assert order(core, 5.0) == ["in time", "late", "far off"], "and ahead of what is due 30 s later"


def test_a_switch_of_policy_gives_a_late_one_a_new_start() -> None:
    core = one_at_a_time("slo_aware")
    enqueue(core, "late", 0.0, ttft_target_s=1.0)
    late = make_request("late").key
    core.schedule(5.0)
    core.registry.pool("tiny").changed = True
    core.schedule(5.0)
    assert "too late" in core.position(late, 5.0).ordering_key  # type: ignore[union-attr]

    core.set_policy("fifo", 6.0, "")
    core.set_policy("slo_aware", 7.0, "")

    assert "slack -" in core.position(late, 7.0).ordering_key  # type: ignore[union-attr]


def test_where_the_first_token_is_missed_the_deadline_still_counts() -> None:
    core = one_at_a_time("slo_aware", late_delay_s=30.0)
    enqueue(core, "both", 0.0, ttft_target_s=1.0, deadline_at=12.0)
    enqueue(core, "in time", 0.0, ttft_target_s=20.0)
    enqueue(core, "late", 0.0, ttft_target_s=1.0)

    assert order(core, 5.0) == ["both", "in time", "late"]


def test_the_cheapest_to_serve_goes_first_within_its_class() -> None:
    core = one_at_a_time("cost_optimized")
    enqueue(core, "dear", 0.0, output=1_000)
    enqueue(core, "cheap", 0.1, output=10)
    enqueue(core, "dear but high", 0.2, output=1_000, priority=H)

    assert order(core, 1.0) == ["dear but high", "cheap", "dear"]


def test_cheapness_counts_for_so_much_and_no_more() -> None:
    core = one_at_a_time("cost_optimized", cost_delay_cap_s=5.0)
    enqueue(core, "very dear", 0.0, prompt=100, output=8_000)
    enqueue(core, "cheap, 4 s later", 4.0, output=1)
    enqueue(core, "cheap, 6 s later", 6.0, output=1)

    assert order(core, 7.0) == ["cheap, 4 s later", "very dear", "cheap, 6 s later"]


def test_a_deadline_that_asks_for_it_comes_before_cheapness() -> None:
    core = one_at_a_time("cost_optimized")
    enqueue(core, "cheap", 0.0, output=10)
    enqueue(core, "urgent", 0.0, output=1_000, priority=B, deadline_at=12.0)

    assert order(core, 0.1) == ["urgent", "cheap"]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("fifo", "arrival, 2.00 s ago"),
        ("priority", "class LOW (90 s behind CRITICAL), aged by 2.00 s"),
        ("slo_aware", "slack 27.9"),
        ("cost_optimized", "class LOW, predicted service"),
    ],
)
def test_says_what_a_request_is_ordered_by(policy: str, words: str) -> None:
    core = one_at_a_time(policy)
    enqueue(core, "low", 1.0, priority=L)

    view = core.position(make_request("low").key, 3.0)

    assert view is not None
    assert words in view.ordering_key
    core.release(1, 3.0, output_tokens=None, finished=False)
    [decision] = core.schedule(3.0)
    assert decision.reasons[-1].startswith(f"ordered by {words}")  # known when it runs, too
