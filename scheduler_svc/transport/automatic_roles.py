"""Automatic roles as AdminService shows them."""

from __future__ import annotations

from sage.controlplane.v1 import admin_pb2
from sage_wire import durations
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.roles.role_change import RoleChange
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport.enums import ROLE_TO_WIRE

_ROLES = (InstanceRole.PREFILLING, InstanceRole.DECODING)  # in the order of the sides


def role_change(change: RoleChange, now: float) -> admin_pb2.RoleChange:
    """Convert a change.  ``now``: seconds on the control clock."""
    return admin_pb2.RoleChange(
        instance_id=change.instance_id,
        model=change.model,
        previous=ROLE_TO_WIRE[change.before],
        role=ROLE_TO_WIRE[change.role],
        cause=change.cause.value,
        reason=change.reason,
        age=durations.to_wire(now - change.at),
    )


def sides(scheduler: Scheduler) -> list[admin_pb2.PrefillDecodeSide]:
    """Return both sides of each model, sorted by model; none where roles are not automatic."""
    return [
        admin_pb2.PrefillDecodeSide(
            model=model,
            role=ROLE_TO_WIRE[role],
            ready=side.ready,
            starting=side.starting,
            pressure=side.pressure,
            reason=side.why,
        )
        for model, both in sorted(scheduler.sides.items())
        for role, side in zip(_ROLES, both, strict=True)
    ]
