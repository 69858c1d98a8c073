"""Converts an AssignOrder to the Assign message that the executor reads, with every default applied."""

from __future__ import annotations

from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_wire import durations
from sage_wire.metadata import TRACEPARENT, TRACESTATE
from scheduler_svc.control.adoption.proofs import Proofs
from scheduler_svc.control.attempts.executor_link import AssignOrder, Continuation
from scheduler_svc.domain.continuation import ContinuationMode
from scheduler_svc.transport import embeddings, request_records, sampling_params
from scheduler_svc.transport.enums import PHASE_TO_WIRE

_MODES = {
    ContinuationMode.HISTORY: executor_pb2.Continuation.MODE_HISTORY,
    ContinuationMode.RESUME: executor_pb2.Continuation.MODE_RESUME,
    ContinuationMode.REPLAY: executor_pb2.Continuation.MODE_REPLAY,
}


def assign_message(order: AssignOrder, instance_id: str = "", proofs: Proofs | None = None) -> executor_pb2.Assign:
    """Convert an order.  The message is a copy: it does not change when the request goes on.

    ``proofs``: None: no scheduler goes on with the attempt after this one.
    """
    message = _message(order)
    if proofs is not None and (record := request_records.record(order)):
        message.record = record
        content = request_records.proved_content(message)
        message.adoption_proof = proofs.proof(instance_id, order.epoch, order.attempt_number, content)
    return message


def _message(order: AssignOrder) -> executor_pb2.Assign:
    request = order.request
    headers = order.trace_headers
    return executor_pb2.Assign(
        number=order.number,
        attempt=common_pb2.Attempt(epoch=order.epoch, number=order.attempt_number),
        request_id=request.key.request_id,
        phase=PHASE_TO_WIRE[order.phase],
        prompt_token_ids=request.prompt_token_ids,
        sampling=sampling_params.to_wire(order.sampling),
        engine_priority=order.engine_priority,
        remaining=None if order.remaining_s is None else durations.to_wire(order.remaining_s),
        trace_context=common_pb2.TraceContext(
            traceparent=headers.get(TRACEPARENT, ""), tracestate=headers.get(TRACESTATE, "")
        ),
        adapter=request.adapter,
        continuation=None if order.continuation is None else _continuation(order.continuation),
        kv_transfer_params=order.handoff.params if order.handoff is not None else b"",
        kv_lease=durations.to_wire(order.handoff.lease_s) if order.handoff is not None else None,
        reasons=order.reasons,
        embedding=None if request.embedding is None else embeddings.to_wire(request.embedding),
    )


def _continuation(how: Continuation) -> executor_pb2.Continuation:
    return executor_pb2.Continuation(
        emitted_token_ids=how.emitted_token_ids,
        mode=_MODES[how.mode],
        emitted_text_length=how.emitted_text_length,
        best_effort=how.best_effort,
    )
