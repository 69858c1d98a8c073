"""Which first tokens teach how long prompts wait beyond what is predicted: those alone, and those behind others."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.prediction.margin import Margins
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import add_instance, make_facts, make_request, make_scheduler

LATE_S = 0.01  # that first tokens come after what is predicted


def fleet(slots: int = 8) -> Scheduler:
    scheduler = make_scheduler("fifo")
    facts = make_facts(max_running=slots, max_batched_tokens=1_000, kv_capacity_tokens=100_000, max_model_len=50_000)
    add_instance(scheduler, "engine", facts=facts)
    return scheduler


def place(scheduler: Scheduler, *names: str, priority: Priority = Priority.NORMAL) -> list[tuple[int, float]]:
    """Place requests at 0; return attempts, and when their first tokens are predicted to come."""
    for name in names:
        scheduler.enqueue(make_request(name, prompt=200, output=20, arrived_at=0.0, priority=priority), 0.0)
    return [(each.attempt_number, each.prediction.first_token_s) for each in scheduler.schedule(0.0)]


def margins(scheduler: Scheduler) -> Margins:
    predictor = scheduler.instance("engine").predictor
    assert predictor is not None
    return predictor.margins


def delays(scheduler: Scheduler) -> tuple[float, float]:
    found = margins(scheduler)
    return found.alone_delay_s, found.behind_delay_s


def test_a_prompt_that_no_other_shares_its_steps_with_teaches_the_delay_of_one_alone() -> None:
    scheduler = fleet()
    ((attempt, predicted_s),) = place(scheduler, "r")
    scheduler.first_token(attempt, predicted_s + LATE_S)
    assert delays(scheduler) == pytest.approx((LATE_S, 0))


def test_a_prompt_behind_another_teaches_the_delay_of_those_and_the_first_of_them_teaches_nothing() -> None:
    scheduler = fleet()
    (first, first_s), (behind, behind_s) = place(scheduler, "first", "behind")
    scheduler.first_token(first, first_s + LATE_S)
    assert delays(scheduler) == (0, 0), "the prompt behind it may have shared its steps"
    scheduler.first_token(behind, behind_s + LATE_S)
    assert delays(scheduler) == pytest.approx((0, LATE_S))


def test_a_critical_prompt_behind_others_teaches_nothing() -> None:
    scheduler = fleet()
    place(scheduler, "first")
    ((attempt, predicted_s),) = place(scheduler, "critical", priority=Priority.CRITICAL)
    scheduler.first_token(attempt, predicted_s + LATE_S)
    assert delays(scheduler) == (0, 0)


def test_a_prompt_that_queues_at_the_engine_teaches_nothing() -> None:
    scheduler = fleet(slots=2)
    placed = place(scheduler, "a", "b", "c")
    assert len(placed) == 3, "the last of them has no slot"
    attempt, predicted_s = placed[2]
    scheduler.first_token(attempt, predicted_s + LATE_S)
    assert delays(scheduler) == (0, 0)
