"""Decodes the messages of a request's stream into values of the SDK."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration

from sage.controlplane.v1 import common_pb2, decision_pb2, inference_pb2
from sage_client import _events as v
from sage_client._enums import FinishReason, InstanceRole, Phase, Priority, RequestState

_E = TypeVar("_E", bound=Enum)


def seconds(duration: Duration) -> float:
    """Return a duration in seconds; 0 if it is absent."""
    return duration.seconds + duration.nanos / 1e9


def word(member_of: type[_E], names: EnumDescriptor, prefix: str, number: int) -> _E:
    """Return the enum member for the contract's ``number``; UNKNOWN for a number of a newer contract."""
    value = names.values_by_number.get(number)
    try:
        return member_of(value.name.removeprefix(prefix).lower() if value else "unknown")
    except ValueError:
        return member_of("unknown")


def role(number: int) -> InstanceRole:
    """Decode a role; unspecified is GENERAL."""
    if number == common_pb2.INSTANCE_ROLE_UNSPECIFIED:
        return InstanceRole.GENERAL
    return word(InstanceRole, common_pb2.InstanceRole.DESCRIPTOR, "INSTANCE_ROLE_", number)


def priority(number: int) -> Priority:
    """Decode a class; one of a newer contract is NORMAL."""
    value = common_pb2.Priority.DESCRIPTOR.values_by_number.get(number)
    name = value.name.removeprefix("PRIORITY_") if value is not None else ""
    return Priority[name] if name in Priority.__members__ else Priority.NORMAL


def request_state(number: int) -> RequestState:
    """Decode a request's state."""
    return word(RequestState, inference_pb2.RequestState.DESCRIPTOR, "REQUEST_STATE_", number)


def parallelism(message: common_pb2.ParallelismConfig) -> v.Parallelism:
    """Decode how an engine is spread over devices."""
    return v.Parallelism(
        tensor_parallel_size=message.tensor_parallel_size,
        pipeline_parallel_size=message.pipeline_parallel_size,
        data_parallel_size=message.data_parallel_size,
        gpu_count=message.gpu_count,
    )


def accepted(message: inference_pb2.Accepted) -> v.Accepted:
    """Decode the acceptance of a request."""
    return v.Accepted(
        request_id=message.request_id,
        model=message.model,
        prompt_tokens=message.prompt_tokens,
        attached=message.attached,
        expected_wait_s=seconds(message.expected_wait) if message.HasField("expected_wait") else None,
        warnings=tuple(message.warnings),
    )


def scheduled(message: inference_pb2.Scheduled) -> v.Scheduled:
    """Decode a placement."""
    return v.Scheduled(
        decision=decision(message.decision), resumed_from_token=message.resumed_from_token, choice=message.choice
    )


def decision(message: decision_pb2.Decision) -> v.Decision:
    """Decode a decision, with its candidates if the message has them."""
    return v.Decision(
        request_id=message.request_id,
        tenant=message.tenant,
        policy=message.policy,
        phase=word(Phase, common_pb2.Phase.DESCRIPTOR, "PHASE_", message.phase),
        phase_reason=message.phase_reason,
        instance_id=message.instance_id,
        prefill_instance_id=message.prefill_instance_id,
        instance_role=role(message.instance_role),
        parallelism=parallelism(message.parallelism_config),
        prediction=_prediction(message.prediction),
        reasons=tuple(message.reasons),
        candidates=tuple(_candidate(each) for each in message.candidates),
        attempt=_attempt(message.attempt),
        waited_s=seconds(message.waited),
        queue_length=message.queue_length,
        reserved_tokens=message.reserved_tokens,
        candidates_considered=message.candidates_considered,
        cached_tokens=message.cached_tokens,
        prefill_cached_tokens=message.prefill_cached_tokens,
    )


def _prediction(message: decision_pb2.Prediction) -> v.Prediction:
    return v.Prediction(
        start_s=seconds(message.start),
        first_token_s=seconds(message.first_token),
        finish_s=seconds(message.finish),
        output_tokens=message.output_tokens,
        cost=message.cost,
    )


def _candidate(message: decision_pb2.Candidate) -> v.Candidate:
    return v.Candidate(
        instance_id=message.instance_id,
        chosen=message.chosen,
        filtered_by=message.filtered_by,
        filter_reason=message.filter_reason,
        scores=dict(message.scores),
        cached_tokens=message.cached_tokens,
    )


def _attempt(message: common_pb2.Attempt) -> v.Attempt:
    return v.Attempt(epoch=message.epoch, number=message.number)


def logprobs(messages: Iterable[common_pb2.TokenLogprobs]) -> tuple[tuple[v.TokenLogprob, ...], ...]:
    """Decode the log probabilities of tokens, one entry per token."""
    return tuple(_candidates(each.candidates) for each in messages)


def _candidates(candidates: Iterable[common_pb2.TokenLogprob]) -> tuple[v.TokenLogprob, ...]:
    return tuple(
        v.TokenLogprob(token_id=each.token_id, logprob=each.logprob, rank=each.rank if each.HasField("rank") else None)
        for each in candidates
    )


def prompt_read(message: inference_pb2.Tokens) -> v.PromptRead:
    """Decode what the first output of a choice tells of the prompt."""
    return v.PromptRead(
        choice=message.choice,
        cached_tokens=message.cached_prompt_tokens,
        logprobs=logprobs(message.prompt_logprobs),
    )


def usage(message: common_pb2.Usage) -> v.Usage:
    """Decode the tokens used."""
    return v.Usage(
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        cached_prompt_tokens=message.cached_prompt_tokens,
    )


def finished(message: inference_pb2.Finished) -> v.Finished:
    """Decode the end of a request."""
    stop = message.WhichOneof("stop")
    return v.Finished(
        finish_reason=word(FinishReason, common_pb2.FinishReason.DESCRIPTOR, "FINISH_REASON_", message.finish_reason),
        stop_string=message.stop_string if stop == "stop_string" else None,
        stop_token_id=message.stop_token_id if stop == "stop_token_id" else None,
        usage=usage(message.usage),
        timings=_timings(message.timings),
        attempts=message.attempts,
        cost=message.cost,
        slo=tuple(slo_result(each) for each in message.slo),
    )


def choice_finished(message: inference_pb2.ChoiceFinished) -> v.ChoiceFinished:
    """Decode the end of one choice of several."""
    return v.ChoiceFinished(choice=message.choice, finished=finished(message.finished))


def _timings(message: common_pb2.Timings) -> v.Timings:
    def of(name: str, duration: Duration) -> float | None:
        return seconds(duration) if message.HasField(name) else None  # type: ignore[arg-type]

    return v.Timings(
        queue_s=of("queue", message.queue),
        time_to_first_token_s=of("time_to_first_token", message.time_to_first_token),
        prefill_s=of("prefill", message.prefill),
        transfer_s=of("transfer", message.transfer),
        decode_s=of("decode", message.decode),
        total_s=of("total", message.total),
    )


def slo_result(message: inference_pb2.SloResult) -> v.SloResult:
    """Decode the result of one target."""
    return v.SloResult(
        target=message.target,
        wanted_s=seconds(message.wanted),
        measured_s=seconds(message.measured),
        met=message.met,
    )
