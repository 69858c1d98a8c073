"""Tenants whose requests wait get tokens by their weights, whatever the policy."""

from __future__ import annotations

from collections import Counter
from functools import partial
from random import Random
from typing import Any

import pytest

from scheduler_svc.domain.policies.builtin import make_fifo
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.request import Priority, Request, RequestKey
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.shares.settings import ShareSettings, TenantSettings
from scheduler_svc.domain.waiting_request import WaitingRequest
from tests.contract.policies.modelled_fleet import ModelledFleet, add_instance, make_facts, make_request, make_scheduler

BUILTIN = ("fifo", "priority", "slo_aware", "cost_optimized", "adaptive")
FOUR_TO_ONE = ShareSettings(tenants={"big": TenantSettings(weight=4), "small": TenantSettings(weight=1)})


class ShortestFirst:
    """A plug-in's ordering that knows nothing of tenants and classes."""

    max_delay_s = 100.0

    def key(self, waiting: WaitingRequest, now: float) -> float:
        return waiting.request.arrived_at + min(100.0, waiting.request.sampling.max_tokens / 10)

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        return None

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        return "the shortest"


def shortest_first(settings: SchedulerSettings) -> Policy:
    fifo = make_fifo(settings)
    return Policy(name="shortest", ordering=ShortestFirst(), objective=fifo.objective, summary="")


def request_of(tenant: str, name: object, **changes: Any) -> Request:
    return make_request(name, key=RequestKey(tenant=tenant, request_id=str(name)), **changes)


def fleet_of(policy: str, shares: ShareSettings = FOUR_TO_ONE, *, instances: int = 2) -> ModelledFleet:
    catalogue = PolicyCatalogue()
    catalogue.add("shortest", shortest_first)
    scheduler = make_scheduler(policy, policies=catalogue, shares=shares)
    for n in range(instances):
        add_instance(scheduler, f"i{n}", facts=make_facts(max_running=8))
    return ModelledFleet(scheduler, heartbeat_s=0.5)


def flood(
    fleet: ModelledFleet, tenant: str, count: int, random: Random, *, prompt: int = 200, output: int = 60
) -> None:
    for n in range(count):
        lengths = {"prompt": random.randint(1, prompt), "output": random.randint(1, output)}
        priority = random.choice((Priority.NORMAL, Priority.LOW)) if tenant == "mixed" else Priority.NORMAL
        fleet.arrive(request_of(tenant, f"{tenant}{n}", priority=priority, **lengths))


def tokens_of(fleet: ModelledFleet) -> Counter[str]:
    """Weighted tokens of the requests that ended, by tenant."""
    tokens: Counter[str] = Counter()
    for key in fleet.ended:
        request = fleet.request(key)
        tokens[key.tenant] += request.prompt_tokens + 2 * request.sampling.max_tokens
    return tokens


@pytest.mark.parametrize("policy", [*BUILTIN, "shortest"])
def test_two_tenants_get_tokens_by_their_weights(policy: str) -> None:
    fleet, random = fleet_of(policy), Random(1)
    flood(fleet, "small", 1_500, random)
    flood(fleet, "big", 3_000, random)

    fleet.run(until=40)

    tokens = tokens_of(fleet)
    assert min(fleet.waiting_of("small"), fleet.waiting_of("big")) > 0
    assert tokens["big"] / tokens["small"] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("policy", BUILTIN)
def test_long_requests_get_a_tenant_no_more_tokens(policy: str) -> None:
    fleet, random = fleet_of(policy, ShareSettings()), Random(2)
    flood(fleet, "short", 6_000, random, prompt=20, output=10)
    flood(fleet, "long", 1_000, random, prompt=1_000, output=120)

    fleet.run(until=24)

    tokens = tokens_of(fleet)
    assert min(fleet.waiting_of("short"), fleet.waiting_of("long")) > 0
    assert tokens["long"] / tokens["short"] == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("policy", BUILTIN)
def test_four_hundred_of_one_tenant_delay_anothers_first_by_one_turn(policy: str) -> None:
    fleet = fleet_of(policy, ShareSettings(), instances=1)
    for n in range(400):
        fleet.arrive(request_of("flood", f"f{n}", output=100))
    fleet.arrive(request_of("small", "mine", output=5, arrived_at=1.3))

    fleet.run(until=10)

    assert fleet.waits()[RequestKey(tenant="small", request_id="mine")] < 1.1  # a slot is free within a second


def test_a_flood_of_one_class_delays_no_other_tenants_other_class_under_fifo() -> None:
    fleet = fleet_of("fifo", ShareSettings(), instances=1)
    for n in range(400):
        fleet.arrive(request_of("flood", f"f{n}", output=100, priority=Priority.HIGH))
    fleet.arrive(request_of("small", "mine", output=5, arrived_at=1.3, priority=Priority.LOW))

    fleet.run(until=10)

    assert fleet.waits()[RequestKey(tenant="small", request_id="mine")] < 1.1


def test_shares_hold_inside_a_class_and_the_class_goes_first() -> None:
    fleet = fleet_of("priority", ShareSettings(), instances=1)
    for n in range(100):
        fleet.arrive(request_of("flood", f"f{n}", output=50, priority=Priority.HIGH))
    fleet.arrive(request_of("small", "mine", output=5, arrived_at=0.1, priority=Priority.LOW))

    fleet.run(until=4)

    assert RequestKey(tenant="small", request_id="mine") not in fleet.placed_at


def test_whoever_was_idle_has_saved_nothing() -> None:
    fleet, random = fleet_of("fifo", ShareSettings()), Random(3)
    flood(fleet, "a", 2_000, random)
    flood(fleet, "b", 2_000, random)
    for n in range(2_000):
        fleet.arrive(request_of("late", f"l{n}", arrived_at=20.0, output=random.randint(1, 60)))
    fleet.run(until=20)
    before = tokens_of(fleet)
    fleet.run(until=35)

    gained = tokens_of(fleet) - before

    assert gained["late"] / gained["a"] == pytest.approx(1, rel=0.15)


def test_what_was_generated_corrects_what_was_charged() -> None:
    """One tenant asks for far more tokens than its requests generate, which costs it nothing."""
    fleet, random = fleet_of("fifo", ShareSettings()), Random(4)
    flood(fleet, "exact", 3_000, random)
    flood(fleet, "boastful", 3_000, random)
    fleet.generates = lambda request: min(request.sampling.max_tokens, 20 if request.key.tenant == "boastful" else 60)

    fleet.run(until=40)

    tokens: Counter[str] = Counter()
    for key in fleet.ended:
        request = fleet.request(key)
        tokens[key.tenant] += request.prompt_tokens + 2 * fleet.generates(request)
    assert tokens["boastful"] / tokens["exact"] == pytest.approx(1, rel=0.05)


def test_tenants_with_a_request_each_go_as_the_policy_orders_them() -> None:
    fleet = fleet_of("shortest", ShareSettings(), instances=1)
    random = Random(5)
    for n in range(300):
        fleet.arrive(request_of(f"t{n}", n, output=random.randint(1, 200)))
    fleet.run()

    placed = [fleet.request(d.key).sampling.max_tokens for d in fleet.decisions]

    assert placed == sorted(placed)


def test_tenants_that_callers_name_leave_no_trace() -> None:
    scheduler = make_scheduler("fifo", instances=1)
    for n in range(5_000):
        scheduler.enqueue(request_of(f"t{n}", n, arrived_at=float(n)), float(n))
        for decision in scheduler.schedule(float(n)):
            scheduler.release(decision.attempt_number, n + 0.5, output_tokens=32, finished=True)
    assert flows_of(scheduler) <= 2


def test_a_tenant_that_was_served_more_is_remembered_until_the_others_have_had_as_much() -> None:
    fleet, random = fleet_of("fifo", ShareSettings(), instances=1), Random(6)
    flood(fleet, "a", 200, random)
    for n in range(200):
        fleet.arrive(request_of(f"b{n}", n, arrived_at=n * 0.01, output=10))
    fleet.run()

    assert flows_of(fleet.scheduler) <= 2


def test_a_switch_of_policy_keeps_the_counters() -> None:
    fleet, random = fleet_of("priority"), Random(7)
    flood(fleet, "small", 1_500, random)
    flood(fleet, "big", 3_000, random)

    def switch(policy: str) -> None:
        fleet.scheduler.set_policy(policy, fleet.now, "as the test wants")

    for at in range(1, 40):
        policy = BUILTIN[1 + at % 3]
        fleet.at(float(at), partial(switch, policy))

    fleet.run(until=40)

    tokens = tokens_of(fleet)
    assert tokens["big"] / tokens["small"] == pytest.approx(4, rel=0.05)


def flows_of(scheduler: Scheduler) -> int:
    """Tenants that the scheduler remembers."""
    queues = [pool.queue for pool in scheduler._registry.pools() if pool.queue is not None]
    return sum(len(group.flows) for queue in queues for group in queue.order.groups.values())
