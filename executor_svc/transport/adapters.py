"""Converts run-time adapters to and from the wire."""

from __future__ import annotations

from executor_svc.runtime.engine_port import AdapterSource
from executor_svc.runtime.messages.commands import AdaptersWanted
from executor_svc.runtime.messages.reports import AdapterReport, AdapterState, AdapterStates
from sage.controlplane.v1 import executor_pb2

_STATE_TO_WIRE = {
    AdapterState.WAITING: executor_pb2.AdapterState.STATE_WAITING,
    AdapterState.LOADING: executor_pb2.AdapterState.STATE_LOADING,
    AdapterState.LOADED: executor_pb2.AdapterState.STATE_LOADED,
    AdapterState.FAILED: executor_pb2.AdapterState.STATE_FAILED,
    AdapterState.UNLOADING: executor_pb2.AdapterState.STATE_UNLOADING,
}


def adapters_wanted(wire: executor_pb2.AdaptersWanted) -> AdaptersWanted:
    """Return which adapters the engine is to hold."""
    return AdaptersWanted(
        number=wire.number,
        sources=[
            AdapterSource(name=each.name, source=each.source, revision=each.revision, max_rank=each.max_rank)
            for each in wire.adapters
        ],
    )


def adapter_states(states: AdapterStates) -> executor_pb2.AdapterStates:
    """Make a report of all adapters."""
    return executor_pb2.AdapterStates(number=states.number, adapters=[_state(each) for each in states.adapters])


def _state(report: AdapterReport) -> executor_pb2.AdapterState:
    source = report.source
    return executor_pb2.AdapterState(
        source=executor_pb2.AdapterSource(
            name=source.name, source=source.source, revision=source.revision, max_rank=source.max_rank
        ),
        state=_STATE_TO_WIRE[report.state],
        reason=report.reason,
        weights=report.weights,
        rank=report.rank,
    )
