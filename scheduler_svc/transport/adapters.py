"""Run-time adapters on the wire: what operators ask, what executors are told, and what they report."""

from __future__ import annotations

import re

from sage.controlplane.v1 import admin_pb2, executor_pb2
from sage_wire.errors import ErrorReason
from scheduler_svc.control.adapters.adapters import Adapters, AdapterView
from scheduler_svc.control.adapters.instance_adapters import AdapterReport, AdapterState
from scheduler_svc.domain.adapters.registered_adapter import AdapterSource
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest
from scheduler_svc.transport.clipping import clipped, reported, size_of
from scheduler_svc.transport.errors import WireError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
SOURCE_BYTES = 1_024
REVISION_BYTES = 256
RANK_LIMIT = 4_096
STATES_LIMIT = 8_192  # adapters in one report: those that are wanted, and those that are being unloaded
_FINGERPRINT_BYTES = 256

_STATE_FROM_WIRE = {
    executor_pb2.AdapterState.STATE_WAITING: AdapterState.LOADING,
    executor_pb2.AdapterState.STATE_LOADING: AdapterState.LOADING,
    executor_pb2.AdapterState.STATE_LOADED: AdapterState.LOADED,
    executor_pb2.AdapterState.STATE_FAILED: AdapterState.FAILED,
    executor_pb2.AdapterState.STATE_UNLOADING: AdapterState.UNLOADING,
}
_STATE_TO_WIRE = {
    AdapterState.ABSENT: admin_pb2.InstanceAdapter.STATE_ABSENT,
    AdapterState.LOADING: admin_pb2.InstanceAdapter.STATE_LOADING,
    AdapterState.LOADED: admin_pb2.InstanceAdapter.STATE_LOADED,
    AdapterState.FAILED: admin_pb2.InstanceAdapter.STATE_FAILED,
    AdapterState.UNLOADING: admin_pb2.InstanceAdapter.STATE_UNLOADING,
    AdapterState.UNSUPPORTED: admin_pb2.InstanceAdapter.STATE_UNSUPPORTED,
}


class AdapterAnswers:
    """Answers operators' calls about adapters."""

    def __init__(self, adapters: Adapters) -> None:
        self._adapters = adapters

    async def add(self, request: admin_pb2.AddAdapterRequest) -> admin_pb2.AddAdapterResponse:
        """Enter an adapter.  Raises InvalidRequest with every field at fault, UnknownModel, LimitReached."""
        found = [
            FieldViolation(field=field, description=description)
            for field, fault, description in (
                ("name", not NAME.fullmatch(request.name), "is not of letters, digits and . _ : / -, at most 128"),
                ("source", not request.source.strip(), "is empty"),
                ("source", size_of(request.source) > SOURCE_BYTES, f"is longer than {SOURCE_BYTES} bytes"),
                ("source", "\0" in request.source, "holds a NUL character"),
                ("revision", size_of(request.revision) > REVISION_BYTES, f"is longer than {REVISION_BYTES} bytes"),
                ("revision", "\0" in request.revision, "holds a NUL character"),
                ("max_rank", request.max_rank > RANK_LIMIT, f"is {request.max_rank}; at most {RANK_LIMIT}"),
            )
            if fault
        ]
        if found:
            raise InvalidRequest(found)
        source = AdapterSource(
            name=request.name, source=request.source, revision=request.revision, max_rank=request.max_rank
        )
        return admin_pb2.AddAdapterResponse(adapter=_message(await self._adapters.add(request.model, source)))

    def list(self, request: admin_pb2.ListAdaptersRequest) -> admin_pb2.ListAdaptersResponse:
        """Return the adapters of one model, or of all."""
        return admin_pb2.ListAdaptersResponse(adapters=map(_message, self._adapters.listed(request.model)))

    async def remove(self, request: admin_pb2.RemoveAdapterRequest) -> admin_pb2.RemoveAdapterResponse:
        """Take an adapter out.  Raises InvalidRequest, UnknownModel."""
        view = await self._adapters.remove(request.model, clipped(request.name, SOURCE_BYTES))
        return admin_pb2.RemoveAdapterResponse(adapter=_message(view))


def _message(view: AdapterView) -> admin_pb2.Adapter:
    source = view.adapter.source
    return admin_pb2.Adapter(
        name=source.name,
        model=view.adapter.model,
        source=source.source,
        revision=source.revision,
        max_rank=source.max_rank,
        removing=view.adapter.removing,
        requests=view.requests,
        instances=[
            admin_pb2.InstanceAdapter(
                instance_id=each.instance_id,
                state=_STATE_TO_WIRE[each.state],
                reason=each.reason,
                weights=each.weights,
                rank=each.rank,
            )
            for each in view.instances
        ],
        not_kept=view.not_kept,
    )


def source_to_wire(source: AdapterSource) -> executor_pb2.AdapterSource:
    """Return a source as executors are told."""
    return executor_pb2.AdapterSource(
        name=source.name, source=source.source, revision=source.revision, max_rank=source.max_rank
    )


def adapter_reports(wire: executor_pb2.AdapterStates) -> list[AdapterReport]:
    """Convert what an executor says of its adapters; a state that only a newer executor knows counts as loading.

    Raises WireError for too many, or a text that is too long.
    """
    if len(wire.adapters) > STATES_LIMIT:
        raise _refused("adapters", f"has {len(wire.adapters)} entries; the limit is {STATES_LIMIT}")
    return [_report(each) for each in wire.adapters]


def _report(wire: executor_pb2.AdapterState) -> AdapterReport:
    source = wire.source
    limits = ((source.name, SOURCE_BYTES), (source.source, SOURCE_BYTES), (source.revision, SOURCE_BYTES))
    for text, limit in (*limits, (wire.weights, _FINGERPRINT_BYTES)):
        if size_of(text) > limit:
            raise _refused("a text", f"is longer than {limit} bytes")
    return AdapterReport(
        source=AdapterSource(
            name=source.name, source=source.source, revision=source.revision, max_rank=source.max_rank
        ),
        state=_STATE_FROM_WIRE.get(wire.state, AdapterState.LOADING),
        reason=reported(wire.reason),
        weights=wire.weights,
        rank=wire.rank,
    )


def _refused(field: str, why: str) -> WireError:
    return WireError(ErrorReason.INVALID_REGISTRATION, f"adapter_states: {field}: {why}")
