"""Converts executors' reports of their engines' sleep from the wire."""

from __future__ import annotations

from sage.controlplane.v1 import executor_pb2
from sage_wire import durations
from scheduler_svc.control.sleep.instance_sleep import SleepReport, SleepState
from scheduler_svc.transport.clipping import reported

_STATE_FROM_WIRE = {
    executor_pb2.SleepReport.STATE_NOT_STARTED: SleepState.NOT_STARTED,
    executor_pb2.SleepReport.STATE_STARTING: SleepState.STARTING,
    executor_pb2.SleepReport.STATE_AWAKE: SleepState.AWAKE,
    executor_pb2.SleepReport.STATE_FALLING_ASLEEP: SleepState.FALLING_ASLEEP,
    executor_pb2.SleepReport.STATE_ASLEEP: SleepState.ASLEEP,
    executor_pb2.SleepReport.STATE_WAKING: SleepState.WAKING,
}


def sleep_report(wire: executor_pb2.SleepReport) -> SleepReport | None:
    """Return a report; None for a state of a later version."""
    state = _STATE_FROM_WIRE.get(wire.state)
    if state is None:
        return None
    return SleepReport(
        state=state,
        number=wire.number,
        reason=reported(wire.reason),
        sleep_s=durations.from_wire(wire.sleep_time) if wire.HasField("sleep_time") else None,
        wake_s=durations.from_wire(wire.wake_time) if wire.HasField("wake_time") else None,
    )
