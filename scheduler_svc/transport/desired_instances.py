"""Converts desired numbers of instances."""

from __future__ import annotations

from sage.controlplane.v1 import admin_pb2
from sage_wire import durations
from scheduler_svc.domain.scaling.desired_instances import DesiredInstances
from scheduler_svc.transport.enums import ROLE_TO_WIRE


def desired_instances(desired: DesiredInstances, now: float) -> admin_pb2.DesiredInstances:
    """Convert the desired number of one model and role.  ``now``: seconds on the control clock."""
    return admin_pb2.DesiredInstances(
        model=desired.model,
        role=ROLE_TO_WIRE[desired.role],
        desired=desired.desired,
        ready=desired.ready,
        starting=desired.starting,
        min=desired.bounds.least,
        max=desired.bounds.most,
        reason=desired.reason,
        age=durations.to_wire(now - desired.since),
        warm_up=durations.to_wire(desired.warm_up_s),
        remove_first=desired.remove_first,
        load=desired.load,
        forecast=desired.forecast,
        price_per_hour=desired.price_per_hour,
    )
