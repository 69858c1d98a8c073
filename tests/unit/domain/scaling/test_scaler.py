"""The scheduler tells how many instances there are to be, from what it sees of its models."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler_svc.domain.errors import QueueFull
from scheduler_svc.domain.expected_wait import UNKNOWN_WAIT_S
from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.request import Embedding, Priority
from scheduler_svc.domain.scaling.desired_instances import DesiredInstances
from scheduler_svc.domain.scaling.settings import Bounds, ScalingSettings
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.shares.settings import ShareSettings, TenantSettings
from tests.contract.policies.modelled_fleet import MODEL, add_instance, make_facts, make_request, make_scheduler


def scaled(instances: int = 1, *, zero: bool = False, scaling: dict[str, Any] | None = None, **more: Any) -> Scheduler:
    given: dict[str, Any] = {"up_delay_s": 0.0, "down_delay_s": 100.0, "idle_s": 50.0, **(scaling or {})}
    models = {MODEL: {InstanceRole.GENERAL: Bounds(least=0, most=4)}} if zero else {}
    settings = ScalingSettings(enabled=True, bounds=Bounds(least=1, most=4), models=models, **given)
    return make_scheduler(instances=instances, scaling=settings, **more)


def look(scheduler: Scheduler, now: float, waiting: int = 0) -> DesiredInstances:
    (desired,) = scheduler.scale({MODEL: waiting} if waiting else {}, now)
    return desired


def load(scheduler: Scheduler, *, rate: float, begin: float, seconds: float) -> float:
    """Have requests come evenly, looked at every 5 s as the service does; return the time of the end."""
    due = begin
    for n in range(round(rate * seconds)):
        now = begin + n / rate
        while due <= now:
            look(scheduler, due)
            due += 5.0
        request = make_request(f"{begin}/{n}", prompt=1_000, output=100, arrived_at=now)
        scheduler.enqueue(request, now)
        scheduler.withdraw(request.key, now)
    return begin + seconds


def test_nothing_is_desired_before_the_first_look() -> None:
    scheduler = scaled()
    assert not scheduler.desired_instances
    desired = look(scheduler, 0.0)
    assert list(scheduler.desired_instances) == [desired]
    assert (desired.model, desired.role, desired.desired, desired.ready) == (MODEL, InstanceRole.GENERAL, 1, 1)


def test_a_load_that_rises_and_ends_wants_more_and_then_fewer() -> None:
    scheduler = scaled()
    end = load(scheduler, rate=8.0, begin=0.0, seconds=120.0)
    busy = look(scheduler, end)
    assert busy.load > 1.4
    assert busy.desired > 1
    for at in range(1, 40):
        quiet = look(scheduler, end + 5.0 * at)
    assert (quiet.desired, quiet.load < 0.1) == (1, True)
    assert quiet.reason.startswith("the load is 0.0") or quiet.reason.startswith("no request for")


def test_the_number_never_leaves_its_bounds() -> None:
    scheduler = scaled()
    end = load(scheduler, rate=60.0, begin=0.0, seconds=60.0)
    desired = look(scheduler, end)
    assert desired.desired == 4
    assert "the maximum is 4" in desired.reason


def test_instances_that_drain_or_are_lost_do_not_count() -> None:
    scheduler = scaled(instances=3)
    scheduler.transition("i0", InstanceState.DRAINING, "", 1.0)
    scheduler.transition("i1", InstanceState.LOST, "", 1.0)
    scheduler.register(InstanceSpec(instance_id="i3", model=MODEL, engine_start_id="1"), 1.0)
    desired = look(scheduler, 2.0)
    assert (desired.ready, desired.starting) == (1, 1)
    assert desired.remove_first == ("i3", "i2")


def test_the_dearest_for_its_work_goes_first_and_of_equal_ones_the_idle_one() -> None:
    scheduler = scaled(instances=0)
    add_instance(scheduler, "cheap", price_per_hour=1.0)
    add_instance(scheduler, "dear", price_per_hour=4.0)
    add_instance(scheduler, "idle", price_per_hour=1.0)
    scheduler.enqueue(make_request("r", preferred_instance="cheap"), 0.0)
    assert [d.instance_id for d in scheduler.schedule(0.0)] == ["cheap"]
    desired = look(scheduler, 1.0)
    assert desired.remove_first == ("dear", "idle", "cheap")
    assert desired.price_per_hour == pytest.approx(3 * 2.0)


def test_the_warm_up_is_measured_from_registration_to_ready() -> None:
    scheduler = scaled(instances=0)
    scheduler.register(InstanceSpec(instance_id="i0", model=MODEL, engine_start_id="1"), 10.0)
    assert look(scheduler, 11.0).warm_up_s == 60.0
    scheduler.transition("i0", InstanceState.LOADING, "", 12.0)
    scheduler.engine_ready("i0", make_facts(), 50.0)
    assert look(scheduler, 51.0).warm_up_s == 40.0


def test_an_engine_that_ran_before_it_registered_tells_nothing_of_starts() -> None:
    """As after a restart of the scheduler: the executors come back with engines that are up."""
    assert look(scaled(), 1.0).warm_up_s == 60.0


def test_a_model_that_is_declared_is_scaled_to_zero_and_from_zero() -> None:
    scheduler = scaled(zero=True, scaling={"down_delay_s": 10.0, "warm_up_s": 5.0})
    end = load(scheduler, rate=1.0, begin=0.0, seconds=20.0)
    assert look(scheduler, end + 30.0).desired == 1, "the last request came less than idle_s ago"
    look(scheduler, end + 60.0)
    gone = look(scheduler, end + 71.0)
    assert gone.desired == 0
    scheduler.transition("i0", InstanceState.DRAINING, "", end + 71.0)
    scheduler.transition("i0", InstanceState.DRAINED, "", end + 72.0)
    scheduler.enqueue(make_request("r", wait_for_instance=True), end + 80.0)
    back = look(scheduler, end + 80.0)
    assert (back.desired, back.reason) == (1, "1 requests wait and no instance is ready")


def test_requests_that_wait_before_the_queue_are_need_too() -> None:
    """Without a tokenizer a prompt cannot be read: such requests wait outside of the queue."""
    scheduler = scaled(instances=0, zero=True)
    assert look(scheduler, 0.0).desired == 0
    assert look(scheduler, 5.0, waiting=2).desired == 1


def test_a_model_that_is_not_declared_keeps_an_instance_and_is_forgotten_with_its_last() -> None:
    scheduler = scaled(scaling={"down_delay_s": 10.0})
    assert look(scheduler, 10_000.0).desired == 1
    scheduler.transition("i0", InstanceState.LOST, "", 10_001.0)
    assert look(scheduler, 10_002.0).desired == 1, "it is to be replaced"
    scheduler.forget("i0")
    assert scheduler.scale({}, 10_003.0) == ()
    assert scheduler.scale({"unheard of": 7}, 10_004.0) == ()


def test_refused_requests_want_another_instance() -> None:
    scheduler = scaled(queue_limit_per_model=1)
    look(scheduler, 0.0)
    for n in range(20):
        try:
            scheduler.enqueue(make_request(n, arrived_at=50.0), 50.0)
        except QueueFull:
            continue
    desired = look(scheduler, 50.0)
    assert desired.desired == 2
    assert "refused" in desired.reason


def test_instances_that_come_back_to_a_scheduler_that_starts_anew_stay() -> None:
    scheduler = scaled(instances=0, zero=True)
    assert look(scheduler, 0.0).desired == 0
    for n in range(4):
        add_instance(scheduler, f"i{n}", now=1.0 + n)
        assert look(scheduler, 1.0 + n).desired == n + 1
    assert look(scheduler, 90.0).desired == 4


def test_displaced_requests_want_another_instance() -> None:
    scheduler = scaled(queue_limit_per_model=2)
    look(scheduler, 0.0)
    for n in range(2):
        scheduler.enqueue(make_request(f"low {n}", priority=Priority.LOW, arrived_at=50.0), 50.0)
    for n in range(2):
        scheduler.enqueue(make_request(f"high {n}", priority=Priority.HIGH, arrived_at=50.0), 50.0)
    assert len(scheduler.take_displaced()) == 2
    assert "refused" in look(scheduler, 50.0).reason


@pytest.mark.parametrize("limit", [0, 1])
def test_requests_that_expire_behind_their_tenants_limit_want_no_instance(limit: int) -> None:
    tenants = {"t": TenantSettings(running_limit=limit)} if limit else {}
    scheduler = scaled(shares=ShareSettings(tenants=tenants))
    look(scheduler, 0.0)
    scheduler.enqueue(make_request("runs"), 0.0)
    assert len(scheduler.schedule(0.0)) == 1
    for n in range(5):
        scheduler.enqueue(make_request(n, deadline_at=50.0), 0.0)
    for n in range(5):
        scheduler.withdraw(make_request(n).key, 50.0)
    assert ("expire" in look(scheduler, 50.0).reason) is not bool(limit)


def test_a_declared_model_takes_no_place_of_one_that_has_instances() -> None:
    scheduler = scaled(instances=0, zero=True, max_models=1)
    add_instance(scheduler, "other", model="other")
    found = scheduler.scale({}, 1.0)
    assert [(each.model, each.desired) for each in found] == [("other", 1), (MODEL, 0)]


def test_each_role_has_a_number_of_its_own() -> None:
    scheduler = scaled(instances=0)
    for name, role in (("p", InstanceRole.PREFILLING), ("d", InstanceRole.DECODING), ("h", InstanceRole.HYBRID)):
        add_instance(scheduler, name, role=role)
    found = scheduler.scale({}, 1.0)
    assert [each.role.value for each in found] == ["decoding", "general", "prefilling"]
    assert [each.remove_first for each in found] == [("d",), ("h",), ("p",)]


# --- the wait that is told while no instance is ready ------------------------------------------------


def test_the_wait_for_a_model_without_an_instance_is_a_start_as_measured() -> None:
    scheduler = scaled(instances=0, zero=True)
    assert scheduler.expected_wait(MODEL, 0.0) == UNKNOWN_WAIT_S
    scheduler.register(InstanceSpec(instance_id="i0", model=MODEL, engine_start_id="1"), 0.0)
    scheduler.transition("i0", InstanceState.WARMING, "", 1.0)
    scheduler.engine_ready("i0", make_facts(), 40.0)
    assert scheduler.expected_wait(MODEL, 41.0) == 0.0
    scheduler.transition("i0", InstanceState.LOST, "", 50.0)
    assert scheduler.expected_wait(MODEL, 60.0) == 40.0
    scheduler.register(InstanceSpec(instance_id="i1", model=MODEL, engine_start_id="2"), 100.0)
    assert scheduler.expected_wait(MODEL, 110.0) == 30.0
    request = make_request("r", wait_for_instance=True)
    assert scheduler.expected_wait_of(request, 130.0) == 10.0


def by_role(scheduler: Scheduler, now: float) -> dict[InstanceRole, DesiredInstances]:
    """Return the desired numbers of a model with both bounds declared, by role."""
    return {each.role: each for each in scheduler.scale({}, now)}


def both_declared(**scaling: Any) -> Scheduler:
    bounds = Bounds(least=0, most=4)
    models = {MODEL: {InstanceRole.GENERAL: bounds, InstanceRole.EMBEDDING: bounds}}
    given: dict[str, Any] = {"up_delay_s": 0.0, "down_delay_s": 10.0, "idle_s": 50.0, "warm_up_s": 5.0, **scaling}
    return make_scheduler(instances=0, scaling=ScalingSettings(enabled=True, models=models, **given))


def test_instances_that_embed_have_their_load_although_others_are_declared() -> None:
    scheduler = both_declared()
    add_instance(scheduler, "e", role=InstanceRole.EMBEDDING, facts=make_facts(embedding_dimensions=8))
    for n in range(480):
        now = n / 8
        request = make_request(n, prompt=1_000, output=1, arrived_at=now, embedding=Embedding())
        scheduler.enqueue(request, now)
        scheduler.withdraw(request.key, now)
    scheduler.enqueue(make_request("waits", embedding=Embedding(), arrived_at=60.0), 60.0)
    desired = by_role(scheduler, 60.0)
    assert desired[InstanceRole.EMBEDDING].load > 0
    assert desired[InstanceRole.EMBEDDING].desired >= 1
    assert desired[InstanceRole.GENERAL].desired == 0, "what waits is to be embedded"


def test_trouble_of_those_that_generate_starts_none_that_embeds() -> None:
    scheduler = both_declared(down_delay_s=0.0)
    add_instance(scheduler, "g")
    add_instance(scheduler, "e", role=InstanceRole.EMBEDDING, facts=make_facts(embedding_dimensions=8))
    by_role(scheduler, 0.0)
    for n in range(3):
        scheduler.enqueue(make_request(n, arrived_at=50.0), 50.0)
    desired = by_role(scheduler, 60.0)
    assert desired[InstanceRole.GENERAL].desired >= 1
    assert desired[InstanceRole.EMBEDDING].desired == 0
    assert desired[InstanceRole.EMBEDDING].load == 0
