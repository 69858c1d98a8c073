"""The role in force when an executor registers again."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec
from scheduler_svc.domain.role_change import Cause, RoleChange
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import MODEL, add_instance, make_scheduler

PREFILLING, DECODING = InstanceRole.PREFILLING, InstanceRole.DECODING


@pytest.fixture
def changed() -> Scheduler:
    """A decode instance that became a prefill instance by itself."""
    scheduler = make_scheduler()
    add_instance(scheduler, "d0", role=DECODING)
    change = RoleChange(
        model=MODEL,
        instance_id="d0",
        before=DECODING,
        role=PREFILLING,
        cause=Cause.PREFILL_PRESSED,
        reason="prefill is pressed",
        at=1.0,
    )
    scheduler.keep_role(change)
    return scheduler


def register(scheduler: Scheduler, **spec: object) -> InstanceRole:
    values: dict[str, object] = {"instance_id": "d0", "model": MODEL, "role": DECODING, "engine_start_id": "2", **spec}
    return scheduler.register(InstanceSpec(**values), 5.0).role  # type: ignore[arg-type]


def test_it_outlives_a_new_engine_of_the_same_executor(changed: Scheduler) -> None:
    assert register(changed) is PREFILLING
    assert changed.instance("d0").role_change is not None


@pytest.mark.parametrize("spec", [{"role": InstanceRole.GENERAL}, {"model": "other"}])
def test_it_does_not_outlive_another_configuration(changed: Scheduler, spec: dict[str, object]) -> None:
    """It was meant for the sides of the model that the executor was configured for."""
    assert register(changed, **spec) is spec.get("role", DECODING)
    assert changed.instance("d0").role_change is None


def test_an_operators_role_outlives_both(changed: Scheduler) -> None:
    changed.set_role("d0", InstanceRole.HYBRID)
    assert register(changed, model="other") is InstanceRole.HYBRID
