"""AssignOrder → Assign: a decision as its executor reads it, every default applied."""

from __future__ import annotations

import json

from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_wire import durations
from sage_wire.metadata import TRACEPARENT, TRACESTATE
from scheduler_svc.control.attempts.executor_link import AssignOrder, Continuation
from scheduler_svc.domain.request import Sampling, StructuredOutput
from scheduler_svc.transport.enums import PHASE_TO_WIRE


def assign_message(order: AssignOrder) -> executor_pb2.Assign:
    """A copy: nothing in it changes when the request goes on."""
    request = order.request
    headers = order.trace_headers
    return executor_pb2.Assign(
        number=order.number,
        attempt=common_pb2.Attempt(epoch=order.epoch, number=order.attempt_number),
        request_id=request.key.request_id,
        phase=PHASE_TO_WIRE[order.phase],
        prompt_token_ids=request.prompt_token_ids,
        sampling=_sampling(order.sampling),
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
    )


def _continuation(how: Continuation) -> executor_pb2.Continuation:
    mode = executor_pb2.Continuation.MODE_REPLAY if how.replay else executor_pb2.Continuation.MODE_RESUME
    return executor_pb2.Continuation(
        emitted_token_ids=how.emitted_token_ids,
        mode=mode,
        emitted_text_length=how.emitted_text_length,
        best_effort=how.best_effort,
    )


def _sampling(sampling: Sampling) -> common_pb2.SamplingParams:
    return common_pb2.SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        stop=sampling.stop,
        stop_token_ids=sampling.stop_token_ids,
        include_stop_in_output=sampling.include_stop_in_output,
        min_tokens=sampling.min_tokens,
        max_tokens=sampling.max_tokens,
        logprobs=sampling.logprobs,
        prompt_logprobs=sampling.prompt_logprobs,
        ignore_eos=sampling.ignore_eos,
        logit_bias=sampling.logit_bias,
        allowed_token_ids=sampling.allowed_token_ids,
        bad_words=sampling.bad_words,
        structured_output=_structured(sampling.structured_output),
        skip_special_tokens=sampling.skip_special_tokens,
    )


def _structured(structured: StructuredOutput | None) -> common_pb2.StructuredOutput | None:
    if structured is None:
        return None
    if structured.kind == "json_object":
        return common_pb2.StructuredOutput(json_object=True)
    if structured.kind == "choice":
        choices = common_pb2.StructuredOutput.Choices(choices=json.loads(structured.value))
        return common_pb2.StructuredOutput(choice=choices)
    return common_pb2.StructuredOutput(**{structured.kind: structured.value})  # type: ignore[arg-type]
