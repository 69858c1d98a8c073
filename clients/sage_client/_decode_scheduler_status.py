"""Decodes what a scheduler says of itself."""

from __future__ import annotations

from datetime import UTC

from sage.controlplane.v1 import admin_pb2
from sage_client._decode import seconds
from sage_client._scheduler_status import SchedulerState, SchedulerStatus

_Response = admin_pb2.GetSchedulerResponse

_STATES = {
    _Response.STATE_STANDBY: SchedulerState.STANDBY,
    _Response.STATE_RECOVERING: SchedulerState.RECOVERING,
    _Response.STATE_LEADING: SchedulerState.LEADING,
    _Response.STATE_LEAVING: SchedulerState.LEAVING,
}


def scheduler_status(message: admin_pb2.GetSchedulerResponse) -> SchedulerStatus:
    """Decode the answer of GetScheduler."""
    return SchedulerStatus(
        state=_STATES.get(message.state, SchedulerState.UNKNOWN),
        epoch=message.epoch,
        leader=message.leader,
        software_version=message.software_version,
        clock=message.clock.ToDatetime(tzinfo=UTC),
        leader_lease_s=seconds(message.leader_lease) if message.HasField("leader_lease") else None,
        lease_left_s=seconds(message.lease_left) or 0.0,
        troubles=tuple(message.troubles),
    )
