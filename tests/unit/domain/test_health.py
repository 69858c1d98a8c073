"""Liveness is progress: work held without an iteration is a stall, whatever the heartbeat says."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import add_instance, make_request, make_scheduler


def beat(scheduler: Scheduler, now: float, *, iterations: int, unfinished: int = 1, **changes: Any) -> None:
    values: dict[str, Any] = {
        "number": 1,
        "last_assign": 0,
        "running": unfinished,
        "waiting": 0,
        "unfinished": unfinished,
        "kv_used_tokens": 0,
        "iterations": iterations,
    }
    scheduler.report("i0", LoadReport(**values | changes), now)


def states(scheduler: Scheduler, now: float) -> list[InstanceState]:
    return [verdict.state for verdict in scheduler.check_health(now)]


@pytest.fixture
def scheduler() -> Scheduler:
    return make_scheduler(instances=1, stall_limit_s=10.0, known_wait_limit_s=60.0, stall_probation_s=30.0)


def test_work_without_iterations_is_a_stall_after_the_limit(scheduler: Scheduler) -> None:
    for now in range(1, 11):
        beat(scheduler, now, iterations=5)
        assert states(scheduler, now) == []

    beat(scheduler, 11.5, iterations=5)
    (verdict,) = scheduler.check_health(11.5)

    assert verdict.state is InstanceState.STALLED
    assert "holds 1 requests and did no iteration for 10.5 s" in verdict.reason
    assert scheduler.instance("i0").state is InstanceState.STALLED


def test_a_slow_engine_that_does_iterations_is_healthy(scheduler: Scheduler) -> None:
    for n in range(20):
        beat(scheduler, n * 9.0, iterations=n)
        assert states(scheduler, n * 9.0) == []


def test_an_idle_engine_is_healthy_however_long(scheduler: Scheduler) -> None:
    for now in (1.0, 100.0, 1_000.0):
        beat(scheduler, now, iterations=5, unfinished=0)
        assert states(scheduler, now) == []


def test_silence_of_an_idle_engine_is_no_stall(scheduler: Scheduler) -> None:
    beat(scheduler, 1.0, iterations=5, unfinished=0)

    assert states(scheduler, 1_000.0) == []


def test_the_limit_counts_from_the_first_work_and_not_from_the_last_iteration(scheduler: Scheduler) -> None:
    beat(scheduler, 1.0, iterations=5, unfinished=0)
    beat(scheduler, 500.0, iterations=5, unfinished=1)

    assert states(scheduler, 505.0) == []
    assert states(scheduler, 510.5) == [InstanceState.STALLED]


def test_a_known_wait_gets_the_longer_limit(scheduler: Scheduler) -> None:
    beat(scheduler, 1.0, iterations=5)
    beat(scheduler, 2.0, iterations=5, known_wait="compiles a grammar")

    assert states(scheduler, 55.0) == []
    (verdict,) = scheduler.check_health(61.5)
    assert "compiles a grammar" in verdict.reason


def test_work_we_gave_it_and_it_says_nothing_of_is_a_stall_too(scheduler: Scheduler) -> None:
    """It applied the Assign and counts no unfinished request, but has not ended ours either."""
    scheduler.enqueue(make_request(1), 0.0)
    (decision,) = scheduler.schedule(0.0)
    scheduler.assigned(decision.attempt_number, 1)
    beat(scheduler, 1.0, iterations=0, unfinished=0, last_assign=1)
    beat(scheduler, 2.0, iterations=0, unfinished=0, last_assign=1)

    assert states(scheduler, 12.5) == [InstanceState.STALLED]


def test_work_that_is_still_on_its_way_is_none(scheduler: Scheduler) -> None:
    scheduler.enqueue(make_request(1), 0.0)
    (decision,) = scheduler.schedule(0.0)
    scheduler.assigned(decision.attempt_number, 1)
    for now in range(1, 30):
        beat(scheduler, now, iterations=0, unfinished=0, last_assign=0)
        assert states(scheduler, now) == []


def test_a_stalled_instance_gets_nothing_new_and_is_back_after_an_iteration(scheduler: Scheduler) -> None:
    beat(scheduler, 1.0, iterations=5)
    assert states(scheduler, 12.0) == [InstanceState.STALLED]
    scheduler.enqueue(make_request(1), 12.0)
    assert scheduler.schedule(12.0) == []

    beat(scheduler, 13.0, iterations=6)

    assert states(scheduler, 13.0) == [InstanceState.READY]
    assert len(scheduler.schedule(13.0)) == 1


def test_a_draining_instance_that_stalled_goes_on_draining(scheduler: Scheduler) -> None:
    scheduler.transition("i0", InstanceState.DRAINING, "", 0.0)
    beat(scheduler, 1.0, iterations=5)
    assert states(scheduler, 12.0) == [InstanceState.STALLED]

    beat(scheduler, 13.0, iterations=6)

    assert states(scheduler, 13.0) == [InstanceState.DRAINING]


def test_a_stalled_instance_without_work_is_tried_again_later_and_later(scheduler: Scheduler) -> None:
    now, gaps = 0.0, []
    for _ in range(6):
        now += 1
        beat(scheduler, now, iterations=5)
        now += 11
        assert states(scheduler, now) == [InstanceState.STALLED]
        beat(scheduler, now, iterations=5, unfinished=0)
        stalled_at = now
        while not states(scheduler, now):
            now += 1
        gaps.append(now - stalled_at)

    assert gaps == [30, 60, 120, 240, 240, 240]


def test_an_iteration_shows_that_it_is_well_again(scheduler: Scheduler) -> None:
    beat(scheduler, 1.0, iterations=5)
    assert states(scheduler, 12.0) == [InstanceState.STALLED]
    beat(scheduler, 13.0, iterations=6)
    assert states(scheduler, 13.0) == [InstanceState.READY]
    beat(scheduler, 14.0, iterations=6)

    assert states(scheduler, 24.5) == [InstanceState.STALLED]
    beat(scheduler, 25.0, iterations=6, unfinished=0)
    assert states(scheduler, 24.5 + 31) == [InstanceState.READY], "the first probation, not the second"


def test_time_in_which_nothing_was_heard_of_it_does_not_count(scheduler: Scheduler) -> None:
    beat(scheduler, 1.0, iterations=5)
    scheduler.transition("i0", InstanceState.SUSPECT, "stream broke", 2.0)
    scheduler.recover("i0", "stream is back", 20.0)

    assert states(scheduler, 20.0) == []
    assert states(scheduler, 1.0 + 10 + 18 + 0.5) == [InstanceState.STALLED]


def test_a_new_engine_starts_with_a_clean_sheet(scheduler: Scheduler) -> None:
    beat(scheduler, 1.0, iterations=50)
    assert states(scheduler, 12.0) == [InstanceState.STALLED]
    scheduler.transition("i0", InstanceState.LOST, "", 13.0)

    add_instance(scheduler, "i0", now=20.0)
    beat(scheduler, 21.0, iterations=0)

    assert states(scheduler, 29.0) == []


def test_without_a_heartbeat_there_is_no_verdict(scheduler: Scheduler) -> None:
    scheduler.enqueue(make_request(1), 0.0)
    scheduler.schedule(0.0)

    assert states(scheduler, 1_000.0) == []
