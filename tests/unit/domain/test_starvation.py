"""Nothing waits for ever, however unfavourable its size or class."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.placement.offer import Offer
from scheduler_svc.domain.request import Priority, RequestKey, Sampling
from tests.contract.policies.modelled_fleet import ModelledFleet, add_instance, make_facts, make_request, make_scheduler

SMALL_SERVICE_S = 1.0  # of a request of a hundred tokens on the modelled engine
BIG_BOUND_S = 8 * SMALL_SERVICE_S


def small_stream(fleet: ModelledFleet, *, every_s: float, until_s: float, prompt: int = 20, **changes: object) -> None:
    for n in range(int(until_s / every_s)):
        fleet.arrive(make_request(n, prompt=prompt, output=100, arrived_at=n * every_s, **changes))


def wait_of(fleet: ModelledFleet, request_id: str) -> float:
    return fleet.waits()[RequestKey(tenant="t", request_id=request_id)]


@pytest.mark.parametrize("policy", ["fifo", "priority"])
@pytest.mark.parametrize("instances", [1, 3])
def test_a_request_that_needs_most_of_an_instance_gets_it(policy: str, instances: int) -> None:
    """Small requests come faster than they go and always fit into what is free; the claim keeps them off."""
    scheduler = make_scheduler(policy)
    for n in range(instances):
        add_instance(
            scheduler, f"i{n}", facts=make_facts(kv_capacity_tokens=2_048, max_model_len=2_048, max_running=64)
        )
    fleet = ModelledFleet(scheduler)
    small_stream(fleet, every_s=0.04 / instances, until_s=20)
    fleet.arrive(make_request("big", prompt=1_900, output=100, arrived_at=5.0))

    fleet.run(until=20)

    # One instance drains, which takes as long as what runs there; then come those let in on the promise to be over.
    assert wait_of(fleet, "big") < BIG_BOUND_S


def test_a_long_prompt_is_not_kept_out_of_the_lookahead_by_short_ones() -> None:
    """Short prompts always fit beside what is queued at the engine; the long one needs that queue empty."""
    scheduler = make_scheduler("fifo")
    add_instance(scheduler, "i0", facts=make_facts(max_running=16, max_batched_tokens=512))
    fleet = ModelledFleet(scheduler)
    small_stream(fleet, every_s=0.05, until_s=60)
    fleet.arrive(make_request("long", prompt=3_000, output=100, arrived_at=5.0))

    fleet.run(until=60)

    assert wait_of(fleet, "long") < 20 * SMALL_SERVICE_S


def test_critical_requests_leave_an_aged_one_its_turn() -> None:
    """Under ``priority`` with twice the load the fleet can do, all of it CRITICAL."""
    scheduler = make_scheduler("priority", ageing_s_per_class=5.0)
    add_instance(scheduler, "i0", facts=make_facts(max_running=2))
    fleet = ModelledFleet(scheduler)
    small_stream(fleet, every_s=0.25, until_s=120, priority=Priority.CRITICAL)
    fleet.arrive(make_request("aged", output=100, arrived_at=1.0, priority=Priority.BACKGROUND))

    fleet.run(until=120)

    # It is due when those that arrived within 40 s of it are done, which takes twice as long as they took to come.
    assert wait_of(fleet, "aged") < 2 * (40 + 1) + 2 * SMALL_SERVICE_S


@pytest.mark.parametrize("policy", ["slo_aware", "cost_optimized"])
def test_a_late_request_is_served_though_others_still_can_make_it(policy: str) -> None:
    scheduler = make_scheduler(policy, late_delay_s=10.0)
    add_instance(scheduler, "i0", facts=make_facts(max_running=2))
    fleet = ModelledFleet(scheduler)
    small_stream(fleet, every_s=0.25, until_s=120, ttft_target_s=60.0)
    fleet.arrive(make_request("late", output=100, arrived_at=1.0, ttft_target_s=1e-3))

    fleet.run(until=120)

    # Stepped back by 10 s, it is due long before those that aim at 60 s.
    assert wait_of(fleet, "late") < 10 + 5 * SMALL_SERVICE_S


@pytest.mark.interpreted
def test_without_the_claim_it_would_wait_for_the_stream_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The load above is one that starves."""
    monkeypatch.setattr(Offer, "respect", lambda offer, claim, now: None)
    scheduler = make_scheduler("fifo")
    add_instance(scheduler, "i0", facts=make_facts(kv_capacity_tokens=2_048, max_model_len=2_048, max_running=64))
    fleet = ModelledFleet(scheduler)
    small_stream(fleet, every_s=0.04, until_s=30)
    fleet.arrive(make_request("big", prompt=1_900, output=100, arrived_at=5.0))

    fleet.run(until=60)

    assert wait_of(fleet, "big") > 2 * BIG_BOUND_S


def test_a_request_that_waits_for_its_adapter_does_not_hold_up_the_others() -> None:
    scheduler = make_scheduler("fifo")
    add_instance(scheduler, "with", facts=make_facts(adapters=frozenset({"lora"}), max_running=1))
    add_instance(scheduler, "without", facts=make_facts(max_running=1))
    for n in range(4):
        scheduler.enqueue(make_request(n, adapter="lora", sampling=Sampling(max_tokens=500)), 0.0)
    scheduler.enqueue(make_request("plain"), 0.0)

    decisions = scheduler.schedule(0.0)

    plain = next(d for d in decisions if d.key.request_id == "plain")
    assert plain.instance_id == "without"
    assert any(reason.startswith("backfilled ahead of t/2") for reason in plain.reasons)


def critical_stream(fleet: ModelledFleet, *, until_s: float) -> None:
    """Have CRITICAL requests come often enough to keep an instance quiet."""
    for n in range(int(until_s / 5)):
        fleet.arrive(
            make_request(f"critical{n}", prompt=20, output=100, arrived_at=n * 5.0, priority=Priority.CRITICAL)
        )


def test_a_request_that_only_the_quiet_instance_serves_is_served_at_once() -> None:
    """An instance that runs nothing stays quiet while others take prompts, and CRITICAL requests come all the time."""
    scheduler = make_scheduler("priority")
    for n in range(8):
        add_instance(scheduler, f"i{n}", facts=make_facts(adapters=frozenset({"x"} if n == 0 else ())))
    fleet = ModelledFleet(scheduler)
    critical_stream(fleet, until_s=120)
    fleet.arrive(make_request("tuned", arrived_at=6.0, adapter="x"))

    fleet.run(until=120)

    assert wait_of(fleet, "tuned") == 0.0


def test_a_long_request_does_not_claim_the_quiet_instance() -> None:
    """The quiet one has room, and does not take it; meanwhile short requests would fill what the others free."""
    scheduler = make_scheduler("priority")
    for n in range(8):
        add_instance(scheduler, f"i{n}", facts=make_facts(kv_capacity_tokens=8_192, max_running=64))
    fleet = ModelledFleet(scheduler)
    critical_stream(fleet, until_s=120)
    for n in range(int(120 / 0.15)):
        fleet.arrive(make_request(n, prompt=20, output=900, arrived_at=n * 0.15))
    fleet.arrive(make_request("long", prompt=5_000, output=2_000, arrived_at=16.0))

    fleet.run(until=120)

    assert wait_of(fleet, "long") < 2 * 9.0, "those that run end within 9 s"
