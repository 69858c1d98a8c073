"""What a client sees of a request: control's events as GenerateResponse messages."""

from __future__ import annotations

from sage.controlplane.v1 import common_pb2, decision_pb2, inference_pb2
from sage_wire import durations
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished, SloOutcome
from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.control.requests.placement import Placement
from scheduler_svc.domain.decision import Candidate, Decision, Prediction, PrefillLeg
from scheduler_svc.domain.engine_facts import Parallelism
from scheduler_svc.domain.instance import Instance
from scheduler_svc.transport.enums import FINISH_REASON_TO_WIRE, PHASE_TO_WIRE, ROLE_TO_WIRE


def accepted(
    live: LiveRequest, *, attached: bool, expected_wait_s: float, receipt: bytes = b""
) -> inference_pb2.GenerateResponse:
    """Make the first event of a stream.  ``expected_wait_s``: predicted seconds in the queue."""
    response = inference_pb2.GenerateResponse()
    fill_accepted(response.accepted, live, attached=attached, expected_wait_s=expected_wait_s, receipt=receipt)
    return response


def fill_accepted(
    wire: inference_pb2.Accepted, live: LiveRequest, *, attached: bool, expected_wait_s: float, receipt: bytes = b""
) -> None:
    """Fill the first event of a request's reader, as ``accepted`` does."""
    wire.request_id = live.key.request_id
    wire.model = live.request.model
    wire.prompt_tokens = live.request.prompt_tokens
    wire.attached = attached
    durations.fill(wire.expected_wait, expected_wait_s)
    wire.warnings.extend(live.warnings)
    wire.receipt = receipt


def scheduled(
    placement: Placement, instance: Instance | None, live: LiveRequest, epoch: int
) -> inference_pb2.GenerateResponse:
    """Make the event of a placement of ``live``, without its candidates.

    ``instance`` is where the request went, or None if the scheduler has forgotten that instance since.
    """
    response = inference_pb2.GenerateResponse()
    fill_scheduled(response.scheduled, placement, instance, live, epoch)
    return response


def fill_scheduled(
    wire: inference_pb2.Scheduled, placement: Placement, instance: Instance | None, live: LiveRequest, epoch: int
) -> None:
    """Fill the event of a placement, as ``scheduled`` does."""
    wire.resumed_from_token = placement.from_token
    wire.choice = live.key.choice
    fill_decision(wire.decision, placement.decision, instance, live, epoch, with_candidates=False)


def tokens(piece: TokenSlice, live: LiveRequest, epoch: int) -> inference_pb2.GenerateResponse:
    """Make the event of a piece of output of ``live``.

    This is the hot path, once per token and client.
    """
    response = inference_pb2.GenerateResponse()
    wire = response.tokens
    wire.attempt.epoch, wire.attempt.number = live.name_of(piece.attempt_number, epoch)
    wire.choice = live.key.choice
    wire.first_index = piece.first_index
    wire.token_ids.extend(piece.token_ids)
    wire.text_offset = piece.text_offset
    wire.text = piece.text
    for found in piece.logprobs or ():
        wire.logprobs.add().MergeFromString(found)
    if live.prompt is not None and not piece.first_index:
        if live.prompt.cached_tokens:
            wire.cached_prompt_tokens = live.prompt.cached_tokens
        for found in live.prompt.logprobs:
            wire.prompt_logprobs.add().MergeFromString(found)
    return response


def finished(outcome: Finished) -> inference_pb2.GenerateResponse:
    """Make the last event of a request that ended by itself; measurements it does not have stay absent."""
    response = inference_pb2.GenerateResponse()
    fill_finished(response.finished, outcome)
    return response


def choice_finished(outcome: Finished, live: LiveRequest) -> inference_pb2.GenerateResponse:
    """Make the event of the end of ``live``, one choice of several."""
    response = inference_pb2.GenerateResponse()
    fill_choice_finished(response.choice_finished, outcome, live)
    return response


def fill_choice_finished(wire: inference_pb2.ChoiceFinished, outcome: Finished, live: LiveRequest) -> None:
    """Fill the event of the end of one choice of several, as ``choice_finished`` does."""
    wire.choice = live.key.choice
    fill_finished(wire.finished, outcome)


def fill_finished(wire: inference_pb2.Finished, outcome: Finished) -> None:
    """Fill the last event of a request that ended by itself, as ``finished`` does."""
    wire.finish_reason = FINISH_REASON_TO_WIRE.get(outcome.finish_reason, common_pb2.FINISH_REASON_UNSPECIFIED)
    usage = wire.usage
    usage.prompt_tokens = outcome.prompt_tokens
    usage.completion_tokens = outcome.completion_tokens
    usage.cached_prompt_tokens = outcome.cached_prompt_tokens
    _fill_timings(wire.timings, outcome)
    wire.attempts = outcome.attempts
    wire.cost = outcome.cost
    for each in outcome.slo:
        wire.slo.append(slo_result(each))
    if outcome.stop_string:
        wire.stop_string = outcome.stop_string
    elif outcome.stop_token_id is not None:
        wire.stop_token_id = outcome.stop_token_id


def _fill_timings(wire: common_pb2.Timings, outcome: Finished) -> None:
    durations.fill(wire.queue, outcome.queue_s)
    durations.fill(wire.total, outcome.total_s)
    if outcome.ttft_s is not None:
        durations.fill(wire.time_to_first_token, outcome.ttft_s)
    if outcome.prefill_s is not None:
        durations.fill(wire.prefill, outcome.prefill_s)
    if outcome.transfer_s is not None:
        durations.fill(wire.transfer, outcome.transfer_s)
    if outcome.decode_s is not None:
        durations.fill(wire.decode, outcome.decode_s)


def fill_decision(
    wire: decision_pb2.Decision,
    made: Decision,
    instance: Instance | None,
    live: LiveRequest,
    epoch: int,
    *,
    with_candidates: bool,
) -> None:
    """Convert a decision about ``live``.

    ``instance`` is where the request went, as known now, or None if the scheduler has forgotten it.  Candidates are
    added only for Explain.  It fills the message in place, which takes a third of the time of nested constructors.
    """
    wire.request_id = made.key.request_id
    wire.tenant = made.key.tenant
    wire.policy = made.policy
    wire.phase = PHASE_TO_WIRE[made.phase]
    wire.phase_reason = made.phase_reason
    wire.instance_id = made.instance_id
    if instance is not None:
        wire.instance_role = ROLE_TO_WIRE[instance.role]
        if instance.facts is not None:
            _fill_parallelism(wire.parallelism_config, instance.facts.parallelism)
    _fill_prediction(wire.prediction, made.prediction)
    wire.reasons.extend(made.reasons)
    if with_candidates:
        wire.candidates.extend(map(candidate, made.candidates))
    wire.attempt.epoch, wire.attempt.number = live.name_of(made.attempt_number, epoch)
    durations.fill(wire.waited, made.waited_s)
    wire.queue_length = made.queue_length
    wire.reserved_tokens = made.reserved_tokens
    wire.candidates_considered = made.candidates_considered
    wire.cached_tokens = made.cached_tokens
    if made.prefill is not None:
        _fill_prefill(wire, made.prefill, epoch)


def _fill_prefill(wire: decision_pb2.Decision, leg: PrefillLeg, epoch: int) -> None:
    wire.prefill_instance_id = leg.instance_id
    wire.prefill_attempt.epoch, wire.prefill_attempt.number = epoch, leg.attempt_number
    wire.prefill_reserved_tokens = leg.reserved_tokens
    wire.prefill_cached_tokens = leg.cached_tokens


def _fill_prediction(wire: decision_pb2.Prediction, predicted: Prediction) -> None:
    """Convert a prediction; its times are seconds since the decision."""
    durations.fill(wire.start, predicted.start_s)
    durations.fill(wire.first_token, predicted.first_token_s)
    durations.fill(wire.finish, predicted.finish_s)
    wire.output_tokens = predicted.output_tokens
    wire.cost = predicted.cost


def candidate(found: Candidate) -> decision_pb2.Candidate:
    """Convert one instance that the decision considered."""
    return decision_pb2.Candidate(
        instance_id=found.instance_id,
        chosen=found.chosen,
        filtered_by=found.filtered_by,
        filter_reason=found.filter_reason,
        scores=dict(found.scores),
        cached_tokens=found.cached_tokens,
    )


def parallelism(config: Parallelism) -> common_pb2.ParallelismConfig:
    """Convert how an engine is spread over devices."""
    wire = common_pb2.ParallelismConfig()
    _fill_parallelism(wire, config)
    return wire


def _fill_parallelism(wire: common_pb2.ParallelismConfig, config: Parallelism) -> None:
    wire.tensor_parallel_size = config.tensor_parallel_size
    wire.pipeline_parallel_size = config.pipeline_parallel_size
    wire.data_parallel_size = config.data_parallel_size
    wire.gpu_count = config.gpu_count


def slo_result(outcome: SloOutcome) -> inference_pb2.SloResult:
    """Convert one target and what was measured against it."""
    return inference_pb2.SloResult(
        target=outcome.target,
        wanted=durations.to_wire(outcome.wanted_s),
        measured=durations.to_wire(outcome.measured_s),
        met=outcome.met,
    )
