from __future__ import annotations

import pytest

from scheduler_svc.domain.errors import InstanceNotFound, InvalidRequest, LimitReached
from scheduler_svc.domain.fleet.registry import Registry
from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from tests.contract.policies.modelled_fleet import MODEL, add_instance, make_facts, make_request, make_scheduler


def make_registry(**changes: int) -> Registry:
    return Registry(**{"max_instances": 4, "max_models": 2} | changes)


def spec(instance_id: str = "i0", *, model: str = "m", **changes: object) -> InstanceSpec:
    values: dict[str, object] = {"instance_id": instance_id, "model": model, "engine_start_id": "1"}
    return InstanceSpec(**values | changes)  # type: ignore[arg-type]


def test_a_registered_instance_is_found_by_its_id_and_its_model_is_known() -> None:
    registry = make_registry()

    instance = registry.register(spec(), now=1.0)

    assert registry.get("i0") is instance
    assert registry.find("i0") is instance
    assert [pool.model for pool in registry.pools()] == ["m"]
    assert instance.state is InstanceState.DOWNLOADING


def test_an_unknown_instance_is_an_error_that_names_those_there_are() -> None:
    registry = make_registry()
    registry.register(spec("a"), 0.0)
    registry.register(spec("b"), 0.0)

    with pytest.raises(InstanceNotFound, match=r"'c'.*a, b"):
        registry.get("c")
    assert registry.find("c") is None


def test_the_same_state_again_changes_the_reason_and_not_its_age() -> None:
    registry = make_registry()
    registry.register(spec(), 0.0)
    registry.transition("i0", InstanceState.LOADING, "weights", 1.0)

    instance = registry.transition("i0", InstanceState.LOADING, "still weights", 5.0)

    assert (instance.state_reason, instance.state_since) == ("still weights", 1.0)


@pytest.mark.parametrize("trouble", [InstanceState.SUSPECT, InstanceState.STALLED])
@pytest.mark.parametrize("before", [InstanceState.READY, InstanceState.DRAINING])
def test_an_instance_in_trouble_recovers_to_what_it_was(before: InstanceState, trouble: InstanceState) -> None:
    registry = make_registry()
    registry.register(spec(), 0.0)
    registry.transition("i0", InstanceState.READY, "", 0.5)
    registry.transition("i0", before, "", 1.0)
    registry.transition("i0", trouble, "stream broke", 2.0)

    assert registry.recover("i0", "stream is back", 3.0).state is before


def test_an_instance_whose_drain_was_lifted_while_it_was_away_recovers_to_ready() -> None:
    scheduler = make_scheduler(instances=1)
    scheduler.transition("i0", InstanceState.DRAINING, "", 1.0)
    scheduler.transition("i0", InstanceState.SUSPECT, "stream broke", 2.0)

    scheduler.recover_without_drain("i0")

    assert scheduler.recover("i0", "stream is back", 3.0).state is InstanceState.READY


def test_a_lost_instance_does_not_recover_by_itself() -> None:
    registry = make_registry()
    registry.register(spec(), 0.0)
    registry.transition("i0", InstanceState.LOST, "", 1.0)

    assert registry.recover("i0", "", 2.0).state is InstanceState.LOST


def test_a_reconnect_of_the_same_engine_keeps_state_and_facts() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0")

    instance = scheduler.register(scheduler.instance("i0").spec, 5.0)

    assert instance.state is InstanceState.READY
    assert instance.facts is not None


def test_a_new_engine_under_the_same_id_starts_over() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0")

    instance = scheduler.register(InstanceSpec(instance_id="i0", model="tiny", engine_start_id="2"), 5.0)

    assert instance.state is InstanceState.DOWNLOADING
    assert instance.facts is None
    assert scheduler.ready_instances("tiny") == []


def test_a_lost_instance_has_to_prove_itself_though_its_engine_is_the_same() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0")
    scheduler.transition("i0", InstanceState.LOST, "lease ran out", 1.0)

    instance = scheduler.register(instance_spec := scheduler.instance("i0").spec, 2.0)

    assert instance.state is InstanceState.DOWNLOADING
    assert scheduler.engine_ready(instance_spec.instance_id, make_facts(), 3.0).state is InstanceState.READY


def test_a_role_set_by_an_administrator_outlives_a_new_registration() -> None:
    registry = make_registry()
    instance = registry.register(spec(), 0.0)
    assert registry.set_role("i0", InstanceRole.DECODING) is InstanceRole.GENERAL

    registry.register(spec(engine_start_id="2"), 1.0)

    assert instance.role is InstanceRole.DECODING


@pytest.mark.parametrize("started", InstanceRole)
@pytest.mark.parametrize("wanted", InstanceRole)
def test_whether_an_engine_embeds_is_not_set_while_it_runs(started: InstanceRole, wanted: InstanceRole) -> None:
    registry = make_registry()
    instance = registry.register(spec(role=started), 0.0)

    if (started is InstanceRole.EMBEDDING) is (wanted is InstanceRole.EMBEDDING):
        assert registry.set_role("i0", wanted) is started
        assert instance.role is wanted
        return
    with pytest.raises(InvalidRequest, match=f"started as {started.value} and cannot become {wanted.value}") as refused:
        registry.set_role("i0", wanted)
    assert [violation.field for violation in refused.value.violations] == ["role"]
    assert instance.role is started


def test_the_role_of_nobody_cannot_be_set() -> None:
    with pytest.raises(InstanceNotFound):
        make_registry().set_role("i0", InstanceRole.HYBRID)


def test_a_role_set_by_an_administrator_ends_with_an_executor_that_comes_back_to_embed() -> None:
    registry = make_registry()
    instance = registry.register(spec(role=InstanceRole.PREFILLING), 0.0)
    registry.set_role("i0", InstanceRole.DECODING)

    registry.register(spec(engine_start_id="2", role=InstanceRole.EMBEDDING), 1.0)

    assert instance.role is InstanceRole.EMBEDDING


def test_a_role_the_executor_changes_is_taken() -> None:
    registry = make_registry()
    instance = registry.register(spec(), 0.0)

    registry.register(spec(engine_start_id="2", role=InstanceRole.HYBRID), 1.0)

    assert instance.role is InstanceRole.HYBRID


def test_an_instance_that_comes_back_with_another_model_serves_that_one() -> None:
    scheduler = make_scheduler()
    add_instance(scheduler, "i0", model="old")
    add_instance(scheduler, "i0", model="new", now=1.0)

    scheduler.enqueue(make_request(1, model="old"), 1.0)
    scheduler.enqueue(make_request(2, model="new"), 1.0)

    assert [d.key.request_id for d in scheduler.schedule(1.0)] == ["2"]


def test_no_more_instances_than_the_bound() -> None:
    registry = make_registry(max_instances=1)
    registry.register(spec("a"), 0.0)
    registry.register(spec("a", engine_start_id="2"), 0.0)

    with pytest.raises(LimitReached, match="1 instances"):
        registry.register(spec("b"), 0.0)


def test_no_more_models_than_the_bound_and_one_without_instance_or_queue_makes_room() -> None:
    registry = make_registry(max_models=2)
    registry.register(spec("a", model="x"), 0.0)
    registry.register(spec("b", model="y"), 0.0)
    with pytest.raises(LimitReached, match="2 models"):
        registry.register(spec("c", model="z"), 0.0)

    registry.forget("b")

    registry.register(spec("c", model="z"), 0.0)
    assert {pool.model for pool in registry.pools()} == {"x", "z"}


def test_a_model_without_instance_and_queue_is_retired_unless_it_is_to_be_kept() -> None:
    scheduler = make_scheduler(instances=1)
    scheduler.enqueue(make_request(1), 0.0)
    scheduler.register(spec("b", model="retired"), 0.0)
    scheduler.register(spec("c", model="kept"), 0.0)
    for name in ("i0", "b", "c"):
        scheduler.forget(name)

    scheduler.retire_models(keep=frozenset({"kept"}))

    assert set(scheduler.models()) == {MODEL, "kept"}
    scheduler.withdraw(make_request(1).key, 0.0)
    scheduler.retire_models(keep=frozenset({"kept"}))
    assert set(scheduler.models()) == {"kept"}


def test_a_forgotten_instance_is_gone() -> None:
    scheduler = make_scheduler(instances=1)
    scheduler.enqueue(make_request(1), 0.0)

    scheduler.forget("i0")

    assert scheduler.schedule(0.0) == []
    with pytest.raises(InstanceNotFound):
        scheduler.forget("i0")


def test_the_instances_of_a_model_are_in_the_order_of_their_ids_as_they_come_and_go() -> None:
    registry = make_registry()
    registry.register(spec("c"), 0.0)
    registry.register(spec("b"), 0.0)
    (pool,) = registry.pools()
    assert [i.instance_id for i in pool.instances()] == ["b", "c"]

    registry.register(spec("a"), 0.0)
    registry.forget("b")

    assert [i.instance_id for i in pool.instances()] == ["a", "c"]
    pool.instances().clear()
    assert len(pool.instances()) == 2, "what a caller does with the list is its own affair"
