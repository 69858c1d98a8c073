"""What one scheduler leaves of a request for the next: RequestRecord and Assign, in both directions."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Sequence
from dataclasses import replace

from google.protobuf.message import DecodeError

from sage.controlplane.v1 import common_pb2, executor_pb2, record_pb2
from sage_wire import durations
from sage_wire.metadata import TRACEPARENT, TRACESTATE
from scheduler_svc.control.adoption.held_request import HeldRequest
from scheduler_svc.control.adoption.proofs import Proofs
from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.control.requests.earlier_attempt import AdoptedAttempt
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain import admission
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.engine_facts import ModelIdentity
from scheduler_svc.domain.request import Request, ResumeMode, Sampling
from scheduler_svc.transport import embeddings, media, sampling_params
from scheduler_svc.transport.enums import PHASE_TO_WIRE, PRIORITY_FROM_WIRE, PRIORITY_TO_WIRE
from scheduler_svc.transport.submissions import key_of
from scheduler_svc.transport.violations import Violations

log = logging.getLogger(__name__)

PHASE_FROM_WIRE = {wire: phase for phase, wire in PHASE_TO_WIRE.items()}

RECORD_BYTES = 64 * 1024
"""Largest record that is sent: a request whose tags or warnings take more is not adopted."""

DIGEST_VERSION = 1
"""How the digest of a request's content is made; a scheduler that makes it otherwise cannot compare."""

CHOICES_VERSION = 2
"""The same for one choice of several, which a scheduler that knows none must not take for the whole."""


def record(order: AssignOrder) -> bytes:
    """Return the record of an order's request; empty if nobody could go on with it."""
    if order.live is None:
        return b""
    made = described(order.live, order.request, order.sent_at)
    made.policy = order.policy
    if order.handoff is not None:
        made.attempts -= 1  # its prefill leg was noted as an attempt, and this leg is the same one
    if order.phase is Phase.PREFILLING:
        made.sampling.CopyFrom(sampling_params.to_wire(order.request.sampling))
    data = made.SerializeToString()
    return data if len(data) <= RECORD_BYTES else b""


def described(live: LiveRequest, request: Request, at: float) -> record_pb2.RequestRecord:
    """Return the record of a request as it is at ``at``, in seconds on the control clock, without its sampling."""
    arrived = request.arrived_at
    made = record_pb2.RequestRecord(
        tenant=request.key.tenant,
        request_id=request.key.request_id,
        digest=live.digest,
        digest_version=DIGEST_VERSION if request.choices == 1 else CHOICES_VERSION,
        model=request.model,
        tokenizer_hash=request.tokenizer_hash,
        priority=PRIORITY_TO_WIRE[request.priority],
        detached=live.detached,
        deadline_stated=request.deadline_stated,
        cost_budget=request.cost_budget,
        session=request.session,
        preferred_instance=request.preferred_instance,
        wait_for_instance=request.wait_for_instance,
        best_effort=request.resume_mode is ResumeMode.BEST_EFFORT,
        tags=request.tags,
        warnings=live.warnings,
        age=durations.to_wire(at - arrived),
        queued=durations.to_wire((live.first_assigned_at if live.first_assigned_at is not None else at) - arrived),
        attempts=live.attempts,
        cost=live.cost,
    )
    if request.choices > 1:
        made.choice, made.choices = request.key.choice, request.choices
    if request.first_choice_prompt_logprobs is not None:
        made.first_choice_prompt_logprobs = request.first_choice_prompt_logprobs
    if request.ttft_target_s is not None:
        made.ttft_target.CopyFrom(durations.to_wire(request.ttft_target_s))
    if request.tpot_target_s is not None:
        made.tpot_target.CopyFrom(durations.to_wire(request.tpot_target_s))
    if live.first_token_at is not None:
        made.first_token.CopyFrom(durations.to_wire(live.first_token_at - arrived))
    if live.identity is not None:
        made.identity_weights = live.identity.weights
        made.identity_dtype = live.identity.dtype
        made.identity_tokenizer_hash = live.identity.tokenizer_hash
        made.identity_adapter_weights = live.identity.adapter_weights
    return made


def proved_content(assign: executor_pb2.Assign) -> bytes:
    """Return what the proof of an Assign is about: all of it, the record included.  Call before the proof is set."""
    return assign.SerializeToString(deterministic=True)


def held_request(
    answer: executor_pb2.HeldAssign, instance_id: str, proofs: Proofs | None, now: float
) -> HeldRequest | None:
    """Return the request of an executor's answer; None if it is not exactly what a scheduler of this fleet sent there.

    None as well if the executor does not hold the attempt any more, or if this version cannot read the request.
    ``now``: seconds on the control clock.
    """
    if proofs is None or not answer.HasField("assign") or not _is_proved(answer, instance_id, proofs):
        return None
    try:
        return _held_request(answer, now)
    except (DecodeError, KeyError, OverflowError, TypeError, ValueError) as error:
        attempt = answer.attempt
        log.error("attempt %d/%d on %s cannot be read: %r", attempt.epoch, attempt.number, instance_id, error)
        return None


def _is_proved(answer: executor_pb2.HeldAssign, instance_id: str, proofs: Proofs) -> bool:
    attempt, assign = answer.attempt, executor_pb2.Assign()
    assign.CopyFrom(answer.assign)
    assign.ClearField("adoption_proof")
    content = proved_content(assign)
    return proofs.proves(answer.assign.adoption_proof, instance_id, attempt.epoch, attempt.number, content)


def _held_request(answer: executor_pb2.HeldAssign, now: float) -> HeldRequest | None:
    """Return the request of a proved answer; None if it is of another version.  Raises what conversion raises."""
    assign, made = answer.assign, record_pb2.RequestRecord()
    made.MergeFromString(assign.record)
    phase = PHASE_FROM_WIRE[assign.phase]
    if made.digest_version not in (DIGEST_VERSION, CHOICES_VERSION):
        return None
    sent_at = now - max(0.0, durations.from_wire(answer.held_for))
    arrived_at = sent_at - durations.from_wire(made.age)
    identity = ModelIdentity(
        weights=made.identity_weights,
        dtype=made.identity_dtype,
        tokenizer_hash=made.identity_tokenizer_hash,
        adapter_weights=made.identity_adapter_weights,
    )
    request = _request(assign, made, arrived_at, sent_at)
    sampling = request.sampling
    return HeldRequest(
        attempt=AdoptedAttempt(
            epoch=answer.attempt.epoch, number=answer.attempt.number, tokens=min(answer.tokens, sampling.max_tokens)
        ),
        request=request,
        digest=made.digest,
        detached=made.detached,
        warnings=tuple(made.warnings),
        identity=identity if made.HasField("first_token") else None,
        phase=phase,
        delivered=len(assign.continuation.emitted_token_ids),
        first_assigned_at=arrived_at + durations.from_wire(made.queued),
        first_token_at=first_token_at(answer, made, arrived_at, sent_at, now),
        cost=made.cost,
        attempts=made.attempts,
        policy=made.policy,
    )


def first_token_at(
    answer: executor_pb2.HeldAssign, made: record_pb2.RequestRecord, arrived_at: float, sent_at: float, now: float
) -> float | None:
    """Return when the request's first token came, of an earlier attempt or of the held one; None if it has none.

    ``arrived_at``, ``sent_at`` (the attempt's Assign), ``now``: seconds on the control clock, as what is returned.
    """
    if made.HasField("first_token"):
        return arrived_at + durations.from_wire(made.first_token)
    if answer.HasField("first_token_for"):
        return min(max(sent_at, now - durations.from_wire(answer.first_token_for)), now)
    return None


def _request(assign: executor_pb2.Assign, made: record_pb2.RequestRecord, arrived_at: float, sent_at: float) -> Request:
    deadline_at = sent_at + durations.from_wire(assign.remaining) if assign.HasField("remaining") else None
    wire = made.sampling if made.HasField("sampling") else assign.sampling
    prompt = array("I", assign.prompt_token_ids)
    found = request_of(made, wire, prompt, assign.adapter, assign.trace_context, arrived_at, deadline_at)
    if assign.images or assign.audio:
        found = replace(found, media=media.from_wire(assign), media_tokens=assign.image_tokens)
    return replace(found, embedding=embeddings.from_wire(assign.embedding)) if assign.HasField("embedding") else found


def request_of(
    made: record_pb2.RequestRecord,
    wire: common_pb2.SamplingParams,
    prompt: Sequence[int],
    adapter: str,
    trace: common_pb2.TraceContext,
    arrived_at: float,
    deadline_at: float | None,
) -> Request:
    """Return the request of a record, with what is kept beside it; times are seconds on the control clock.

    Raises what conversion raises.
    """
    if not prompt:
        raise ValueError("it has no prompt")
    sampling = Sampling(**sampling_params.given(wire, Violations()))
    headers = {TRACEPARENT: trace.traceparent, TRACESTATE: trace.tracestate}
    return Request(
        key=key_of(made.tenant, made.request_id)._replace(choice=made.choice),
        model=made.model,
        prompt_token_ids=prompt,
        tokenizer_hash=made.tokenizer_hash,
        largest_token_id=max((*prompt, admission.largest_id(sampling))),
        sampling=sampling,
        priority=PRIORITY_FROM_WIRE[made.priority],
        arrived_at=arrived_at,
        deadline_at=deadline_at,
        deadline_stated=made.deadline_stated,
        ttft_target_s=durations.from_wire(made.ttft_target) if made.HasField("ttft_target") else None,
        tpot_target_s=durations.from_wire(made.tpot_target) if made.HasField("tpot_target") else None,
        cost_budget=made.cost_budget if made.HasField("cost_budget") else None,
        session=made.session,
        preferred_instance=made.preferred_instance,
        adapter=adapter,
        wait_for_instance=made.wait_for_instance,
        resume_mode=ResumeMode.BEST_EFFORT if made.best_effort else ResumeMode.STRICT,
        tags=dict(made.tags),
        trace_headers={name: value for name, value in headers.items() if value},
        choices=max(1, made.choices),
        first_choice_prompt_logprobs=(
            made.first_choice_prompt_logprobs if made.HasField("first_choice_prompt_logprobs") else None
        ),
    )
