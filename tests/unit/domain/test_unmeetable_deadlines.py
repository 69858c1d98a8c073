"""Only a request whose deadline really is over before it leaves the queue is refused for that."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler_svc.domain.errors import Overloaded
from scheduler_svc.domain.request import Priority, RequestKey
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.shares.settings import ShareSettings, TenantSettings
from tests.contract.policies.modelled_fleet import add_instance, make_facts, make_request, make_scheduler

SERVICE_S = 60.0


def served_once(policy: str = "fifo", *, max_running: int = 8, **settings: Any) -> Scheduler:
    """Make a scheduler with an idle instance where one request ended, after a minute."""
    scheduler = make_scheduler(policy, refuse_hopeless=True, **settings)
    add_instance(scheduler, "i0", facts=make_facts(max_running=max_running))
    scheduler.enqueue(make_request("first"), 0.0)
    (first,) = scheduler.schedule(0.0)
    scheduler.release(first.attempt_number, SERVICE_S, output_tokens=32, finished=True)
    return scheduler


def test_a_burst_on_an_idle_instance_is_let_in() -> None:
    scheduler = served_once()

    for n in range(8):
        scheduler.enqueue(make_request(n, arrived_at=100.0, deadline_at=105.0), 100.0)

    assert scheduler.waiting("tiny") == 8


def test_prompts_that_wait_for_others_prompts_do_not_wait_for_a_slot() -> None:
    scheduler = served_once(max_running=64)
    for n in range(20):
        scheduler.enqueue(make_request(n, prompt=4_000, arrived_at=100.0), 100.0)
    assert len(scheduler.schedule(100.0)) < 10

    scheduler.enqueue(make_request("mine", arrived_at=100.0, deadline_at=110.0), 100.0)


def test_requests_of_a_tenant_at_its_running_limit_are_not_ahead() -> None:
    shares = ShareSettings(tenants={"held": TenantSettings(running_limit=1)})
    scheduler = served_once(shares=shares)
    for n in range(50):
        key = RequestKey(tenant="held", request_id=str(n))
        scheduler.enqueue(make_request(n, key=key, arrived_at=100.0), 100.0)
    scheduler.schedule(100.0)

    scheduler.enqueue(make_request("mine", arrived_at=100.0, deadline_at=105.0), 100.0)


@pytest.mark.parametrize("policy", ["slo_aware", "cost_optimized"])
def test_a_request_that_its_deadline_brings_to_the_front_is_let_in(policy: str) -> None:
    scheduler = served_once(policy)
    for n in range(100):
        scheduler.enqueue(make_request(n, output=2_000, arrived_at=100.0), 100.0)
    scheduler.schedule(100.0)

    scheduler.enqueue(make_request("mine", arrived_at=100.0, deadline_at=120.0), 100.0)


def with_twenty_waiting(policy: str, **changes: Any) -> Scheduler:
    """Make a scheduler whose instance is full, where twenty others wait for its slots, for 150 s in all."""
    scheduler = served_once(policy)
    for n in range(9):
        scheduler.enqueue(make_request(n, arrived_at=100.0, priority=Priority.CRITICAL), 100.0)
    assert len(scheduler.schedule(100.0)) == 9
    for n in range(100, 120):
        scheduler.enqueue(make_request(n, arrived_at=100.0, deadline_at=245.0, **changes), 100.0)
    return scheduler


@pytest.mark.parametrize("policy", ["fifo", "priority", "slo_aware", "cost_optimized"])
def test_a_request_behind_others_that_outlast_its_deadline_is_refused(policy: str) -> None:
    scheduler = with_twenty_waiting(policy)

    with pytest.raises(Overloaded, match="deadline"):
        scheduler.enqueue(make_request("mine", arrived_at=100.0, deadline_at=246.0), 100.0)


def test_a_request_whose_deadline_is_over_expires_instead_of_being_told_to_try_again() -> None:
    scheduler = with_twenty_waiting("fifo")
    with pytest.raises(Overloaded, match=r"the deadline, in 0\.001 s, cannot be met"):
        scheduler.enqueue(make_request("late", arrived_at=100.0, deadline_at=100.001), 100.0)

    scheduler.enqueue(make_request("too late", arrived_at=100.0, deadline_at=100.0), 100.0)


@pytest.mark.parametrize("policy", ["fifo", "priority", "slo_aware", "cost_optimized"])
def test_requests_that_stand_aside_or_left_are_not_ahead(policy: str) -> None:
    aside, left = with_twenty_waiting(policy, adapter="unknown"), with_twenty_waiting(policy)
    aside.schedule(100.0)
    for n in range(100, 120):
        left.withdraw(RequestKey(tenant="t", request_id=str(n)), 100.0)

    for scheduler in (aside, left):
        scheduler.enqueue(make_request("mine", arrived_at=100.0, deadline_at=246.0), 100.0)


def test_a_prompt_that_a_cache_holds_needs_no_time_to_compute() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0", facts=make_facts(max_running=1))
    prompt: dict[str, Any] = {"prompt": 4_096, "prefix_hashes": tuple(range(1, 256)), "prefix_block_tokens": 16}
    scheduler.enqueue(make_request("first", **prompt), 0.0)
    (first,) = scheduler.schedule(0.0)
    scheduler.first_token(first.attempt_number, 1.0)
    pace = scheduler.instance("i0").account.pace
    computed_s = 4_096 * pace.prefill_token_s
    scheduler.enqueue(make_request("cached", deadline_at=2 + computed_s / 2, arrived_at=1.0, **prompt), 1.0)
    scheduler.enqueue(make_request("new", deadline_at=2 + computed_s / 2, arrived_at=1.0, prompt=4_096), 1.0)

    assert [key.request_id for key, _ in scheduler.given_up(2.0)] == ["new"]
