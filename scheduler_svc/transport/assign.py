"""Converts an AssignOrder to the Assign message that the executor reads, with every default applied."""

from __future__ import annotations

from sage.controlplane.v1 import executor_pb2
from sage_media.kinds import MediaKind
from sage_wire import durations
from sage_wire.metadata import TRACEPARENT, TRACESTATE
from scheduler_svc.control.adoption.proofs import Proofs
from scheduler_svc.control.attempts.executor_link import AssignOrder, Continuation
from scheduler_svc.domain.continuation import ContinuationMode
from scheduler_svc.transport import embeddings, media, request_records, sampling_params
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
    message = executor_pb2.Assign()
    fill_assign(message, order, instance_id, proofs)
    return message


def fill_assign(message: executor_pb2.Assign, order: AssignOrder, instance_id: str, proofs: Proofs | None) -> None:
    """Convert an order, as ``assign_message`` does, into an empty message."""
    _fill(message, order)
    if proofs is not None and (record := request_records.record(order)):
        message.record = record
        content = request_records.proved_content(message)
        message.adoption_proof = proofs.proof(instance_id, order.epoch, order.attempt_number, content)


def _fill(message: executor_pb2.Assign, order: AssignOrder) -> None:
    request, headers = order.request, order.trace_headers
    message.number = order.number
    message.attempt.epoch, message.attempt.number = order.epoch, order.attempt_number
    message.request_id = request.key.request_id
    message.phase = PHASE_TO_WIRE[order.phase]
    message.prompt_token_ids.extend(request.prompt_token_ids)
    sampling_params.fill(message.sampling, order.sampling)
    message.engine_priority = order.engine_priority
    if order.remaining_s is not None:
        durations.fill(message.remaining, order.remaining_s)
    message.trace_context.traceparent = headers.get(TRACEPARENT, "")
    message.trace_context.tracestate = headers.get(TRACESTATE, "")
    message.adapter = request.adapter
    if order.continuation is not None:
        message.continuation.CopyFrom(_continuation(order.continuation))
    if order.handoff is not None:
        message.kv_transfer_params = order.handoff.params
        durations.fill(message.kv_lease, order.handoff.lease_s)
    message.reasons.extend(order.reasons)
    if request.embedding is not None:
        message.embedding.CopyFrom(embeddings.to_wire(request.embedding))
    message.images.extend(media.to_wire(request.media, MediaKind.IMAGE))
    message.audio.extend(media.to_wire(request.media, MediaKind.AUDIO))
    message.image_tokens = request.media_tokens


def _continuation(how: Continuation) -> executor_pb2.Continuation:
    return executor_pb2.Continuation(
        emitted_token_ids=how.emitted_token_ids,
        mode=_MODES[how.mode],
        emitted_text_length=how.emitted_text_length,
        best_effort=how.best_effort,
    )
