"""Automatic roles as AdminService shows them, and as executors keep them."""

from __future__ import annotations

import logging

from sage.controlplane.v1 import admin_pb2, executor_pb2
from sage_wire import durations
from scheduler_svc.control.roles.kept_role import KeptRole
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.role_change import Cause, RoleChange
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport.clipping import REASON_BYTES, clipped
from scheduler_svc.transport.enums import ROLE_FROM_WIRE, ROLE_TO_WIRE

log = logging.getLogger(__name__)

_ROLES = (InstanceRole.PREFILLING, InstanceRole.DECODING)  # in the order of the sides
CAUSE_SHOWN = 64  # characters of a cause that is not known, in the log
_CAUSES = {cause.value: cause for cause in Cause}


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


def kept_role_to_wire(change: RoleChange | None, age_s: float) -> executor_pb2.AutomaticRole:
    """Make what an executor is to keep; None: nothing."""
    if change is None:
        return executor_pb2.AutomaticRole()
    return executor_pb2.AutomaticRole(
        role=ROLE_TO_WIRE[change.role],
        previous=ROLE_TO_WIRE[change.before],
        cause=change.cause.value,
        reason=clipped(change.reason, REASON_BYTES),
        age=durations.to_wire(age_s),
    )


def kept_role(wire: executor_pb2.AutomaticRole, instance_id: str) -> KeptRole | None:
    """Return what an executor kept; None, which is logged, where this version does not know its roles.

    A cause that it does not know is logged, and the role is kept: a scheduler of another version had its reason.
    """
    if wire.role not in ROLE_FROM_WIRE or wire.previous not in ROLE_FROM_WIRE:
        log.warning("instance %s kept a role that is not known here, %d: it is ignored", instance_id, wire.role)
        return None
    cause = _CAUSES.get(wire.cause, Cause.UNKNOWN)
    if cause is Cause.UNKNOWN:
        role, named = ROLE_FROM_WIRE[wire.role].value, wire.cause[:CAUSE_SHOWN]
        log.warning("instance %s kept the role %s for a cause that is not known here: %r", instance_id, role, named)
    return KeptRole(
        role=ROLE_FROM_WIRE[wire.role],
        previous=ROLE_FROM_WIRE[wire.previous],
        cause=cause,
        reason=clipped(wire.reason, REASON_BYTES),
        age_s=max(0.0, durations.from_wire(wire.age)),
    )
