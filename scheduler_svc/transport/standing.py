"""Answers AdminService.GetScheduler, which a scheduler that stands by answers, too."""

from __future__ import annotations

from importlib import metadata

from sage.controlplane.v1 import admin_pb2
from sage_wire import durations
from scheduler_svc.control.leadership.standing import SchedulerState, Standing

_Response = admin_pb2.GetSchedulerResponse

_STATES = {
    SchedulerState.STANDBY: _Response.STATE_STANDBY,
    SchedulerState.RECOVERING: _Response.STATE_RECOVERING,
    SchedulerState.LEADING: _Response.STATE_LEADING,
    SchedulerState.LEAVING: _Response.STATE_LEAVING,
}


def scheduler_response(standing: Standing) -> admin_pb2.GetSchedulerResponse:
    """Return the answer that tells a scheduler's state."""
    answer = _Response(
        state=_STATES[standing.state],
        epoch=standing.epoch,
        leader=standing.leader,
        software_version=_version(),
        troubles=standing.troubles,
    )
    answer.clock.GetCurrentTime()
    if standing.lease_s is not None:
        answer.leader_lease.CopyFrom(durations.to_wire(standing.lease_s))
        answer.lease_left.CopyFrom(durations.to_wire(standing.lease_left_s))
    return answer


def _version() -> str:
    try:
        return metadata.version("sage-control-plane")
    except metadata.PackageNotFoundError:
        return "unknown"
