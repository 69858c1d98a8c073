"""Converts reports of an engine's sleep to the wire."""

from __future__ import annotations

from executor_svc.runtime.messages.reports import SleepReport, SleepState
from sage.controlplane.v1 import executor_pb2
from sage_wire import durations

_STATE_TO_WIRE = {
    SleepState.NOT_STARTED: executor_pb2.SleepReport.STATE_NOT_STARTED,
    SleepState.STARTING: executor_pb2.SleepReport.STATE_STARTING,
    SleepState.AWAKE: executor_pb2.SleepReport.STATE_AWAKE,
    SleepState.FALLING_ASLEEP: executor_pb2.SleepReport.STATE_FALLING_ASLEEP,
    SleepState.ASLEEP: executor_pb2.SleepReport.STATE_ASLEEP,
    SleepState.WAKING: executor_pb2.SleepReport.STATE_WAKING,
}


def sleep_report(report: SleepReport) -> executor_pb2.SleepReport:
    """Make a report of whether the engine sleeps."""
    return executor_pb2.SleepReport(
        state=_STATE_TO_WIRE[report.state],
        number=report.number,
        reason=report.reason,
        sleep_time=None if report.sleep_s is None else durations.to_wire(report.sleep_s),
        wake_time=None if report.wake_s is None else durations.to_wire(report.wake_s),
    )
