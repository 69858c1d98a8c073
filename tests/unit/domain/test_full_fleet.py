"""A pass over a fleet without room ends without a look at what waits, and misses nothing by it."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler_svc.domain.placement.placer import Placer
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import MODEL, add_instance, make_facts, make_request, make_scheduler


def full_fleet(policy: str, *, tokenizers: tuple[str, str] = ("", ""), **facts: Any) -> Scheduler:
    """Make a fleet of two instances without a slot for a request that is not CRITICAL; three such requests wait.

    ``tokenizers``: the hash of each instance's.
    """
    scheduler = make_scheduler(policy)
    for name, tokenizer_hash in zip("ab", tokenizers, strict=True):
        add_instance(scheduler, name, facts=make_facts(max_running=2, tokenizer_hash=tokenizer_hash, **facts))
    for n in range(12):
        scheduler.enqueue(make_request(n, prompt=50, output=50), 0.0)
        for decision in scheduler.schedule(0.0):
            scheduler.first_token(decision.attempt_number, 0.0)
    while scheduler.waiting(MODEL) > 3:
        scheduler.withdraw(next(iter(pool(scheduler).queue)).request.key, 0.0)
    assert scheduler.schedule(0.0) == []
    return scheduler


def pool(scheduler: Scheduler) -> Any:
    return scheduler._registry.pool(MODEL)


def look_again(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a pass; return the ids of the requests that it looked at."""
    looked_at, demand = [], Placer.demand

    def noting(self: Placer, waiting: Any, policy: Any) -> Any:
        looked_at.append(waiting.request.key.request_id)
        return demand(self, waiting, policy)

    with monkeypatch.context() as patched:
        patched.setattr(Placer, "demand", noting)
        pool(scheduler).changed = True
        assert scheduler.schedule(0.0) == []
    return looked_at


@pytest.mark.interpreted
@pytest.mark.parametrize("policy", ["fifo", "slo_aware", "priority"])
def test_nothing_is_looked_at(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = full_fleet(policy)

    assert look_again(scheduler, monkeypatch) == []
    assert pool(scheduler).claim is None


def test_a_request_leaves_room_for_the_next() -> None:
    scheduler = full_fleet("fifo")
    first = next(iter(scheduler._ledger._entries))
    scheduler.release(first, 1.0, output_tokens=50, finished=True)

    assert len(scheduler.schedule(1.0)) == 1


def test_a_critical_request_takes_the_reserved_slot() -> None:
    scheduler = full_fleet("priority")
    scheduler.enqueue(make_request("urgent", prompt=50, output=50, priority=Priority.CRITICAL), 1.0)

    (decision,) = scheduler.schedule(1.0)
    assert decision.key.request_id == "urgent"


@pytest.mark.interpreted
def test_the_head_claims_an_instance_where_kv_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may find room sooner than it."""
    scheduler = full_fleet("priority", kv_capacity_tokens=192)

    assert look_again(scheduler, monkeypatch)
    assert pool(scheduler).claim is not None


@pytest.mark.interpreted
def test_what_nobody_can_serve_is_set_aside_behind_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = full_fleet("priority")
    scheduler.enqueue(make_request("odd", prompt=50, output=50, adapter="absent"), 0.0)

    assert "odd" in look_again(scheduler, monkeypatch)
    assert [each.request.key.request_id for each in pool(scheduler).queue.aside] == ["odd"]
    assert look_again(scheduler, monkeypatch), "it still waits, so requests are looked at"


@pytest.mark.interpreted
def test_a_third_tokenizer_is_set_aside_where_engines_have_two(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = full_fleet("priority", tokenizers=("x", "y"))
    for each in "xyz":
        scheduler.enqueue(make_request(each, prompt=50, output=50, tokenizer_hash=each), 0.0)

    look_again(scheduler, monkeypatch)
    assert [each.request.key.request_id for each in pool(scheduler).queue.aside] == ["z"]
