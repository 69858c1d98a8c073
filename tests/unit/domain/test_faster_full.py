"""A request waits for a fast instance that is full of prompts for a moment, rather than go to a slow one."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import (
    MODEL,
    add_instance,
    make_facts,
    make_load,
    make_request,
    make_scheduler,
)

CHUNK = 1_000  # prompt tokens of a full step
FAST_S, SLOW_S = 1e-4, 1e-3  # per prompt token

policies = pytest.mark.parametrize("policy", ["fifo", "priority", "slo_aware"])


def teach(scheduler: Scheduler, instance_id: str, prefill_token_s: float) -> None:
    """Report iterations of an engine of this speed."""
    samples = tuple(
        IterationSample(
            prefill_tokens=100 * (n % 11),
            decode_tokens=1 + n % 7,
            running=1 + n % 7,
            kv_used_tokens=1_000 * (1 + n % 5),
            elapsed_s=prefill_token_s * (10 + 100 * (n % 11)),
        )
        for n in range(20)
    )
    for number in range(1, 11):
        scheduler.report(instance_id, make_load(number, samples), 0.0)


def fleet(policy: str, slow_s: float = SLOW_S) -> tuple[Scheduler, list[int]]:
    """Make a fast instance with prompts for its next steps and an idle one; return the attempts of those prompts."""
    scheduler = make_scheduler(policy)
    facts = make_facts(max_running=64, max_batched_tokens=CHUNK, kv_capacity_tokens=200_000, max_model_len=100_000)
    for instance_id, prefill_token_s in (("fast", FAST_S), ("idle", slow_s)):
        add_instance(scheduler, instance_id, facts=facts)
        teach(scheduler, instance_id, prefill_token_s)
    attempts: list[int] = []
    while scheduler.instance("fast").account.prompt_limit >= 0:
        arrive(scheduler, f"ahead{len(attempts)}", preferred_instance="fast")
        (decision,) = scheduler.schedule(0.0)
        assert decision.instance_id == "fast"
        attempts.append(decision.attempt_number)
    return scheduler, attempts


def arrive(scheduler: Scheduler, name: str, *, prompt: int = CHUNK, **changes: Any) -> None:
    scheduler.enqueue(make_request(name, prompt=prompt, output=20, arrived_at=0.0, **changes), 0.0)


@policies
def test_a_long_prompt_waits_for_the_fast_instance(policy: str) -> None:
    scheduler, ahead = fleet(policy)
    arrive(scheduler, "r")

    assert scheduler.schedule(0.0) == []
    view = scheduler.position(RequestKey("t", "r"), 0.0)
    assert view is not None
    why = "it waits for fast, where its first token comes sooner behind the prompts that are there"
    assert view.because == f"it is next; {why}"

    for attempt in ahead:
        scheduler.first_token(attempt, 0.2)
    (decision,) = scheduler.schedule(0.2)
    assert decision.instance_id == "fast"


@policies
def test_nobody_waits_for_an_instance_whose_prompts_are_overdue(policy: str) -> None:
    scheduler, _ = fleet(policy)
    arrive(scheduler, "r")
    assert scheduler.schedule(0.0) == []

    arrive(scheduler, "next")  # its arrival makes a pass due
    assert [decision.instance_id for decision in scheduler.schedule(1.0)] == ["idle", "idle"]


def test_nobody_waits_for_a_quiet_instance() -> None:
    scheduler, _ = fleet("priority")
    scheduler._registry.get("fast").account.keep_quiet(True)
    arrive(scheduler, "r")

    assert [decision.instance_id for decision in scheduler.schedule(0.0)] == ["idle"]


@policies
def test_nobody_waits_for_longer_than_the_first_token_takes_elsewhere(policy: str) -> None:
    """However often the fast instance gets other prompts meanwhile."""
    scheduler, _ = fleet(policy)
    arrive(scheduler, "r")
    account = scheduler._registry.get("fast").account
    went_at = None
    for tenth in range(40):
        now = tenth / 10
        account.pending.busy_until = now + 0.2  # as if others had gone before
        account.learn(account.pace)
        scheduler._registry.pool(MODEL).changed = True
        if decisions := scheduler.schedule(now):
            assert [decision.instance_id for decision in decisions] == ["idle"]
            went_at = now
            break
    first_token_s = CHUNK * SLOW_S
    assert went_at is not None
    assert first_token_s <= went_at <= 1.5 * first_token_s


@policies
@pytest.mark.parametrize(
    ("slow_s", "changes"),
    [
        (FAST_S, {}),
        (SLOW_S, {"prompt": 20}),
        (SLOW_S, {"preferred_instance": "idle"}),
        (SLOW_S, {"session": "s"}),
    ],
    ids=["equal speeds", "short prompt", "caller's wish", "session"],
)
def test_a_request_goes_at_once(policy: str, slow_s: float, changes: dict[str, Any]) -> None:
    scheduler, _ = fleet(policy, slow_s)
    arrive(scheduler, "r", **changes)

    (decision,) = scheduler.schedule(0.0)
    assert decision.instance_id == "idle"


@policies
def test_in_a_long_queue_nobody_waits(policy: str) -> None:
    scheduler, _ = fleet(policy)
    for n in range(20):
        arrive(scheduler, f"r{n}")

    assert {decision.instance_id for decision in scheduler.schedule(0.0)} == {"idle"}
    assert scheduler.waiting(MODEL)
