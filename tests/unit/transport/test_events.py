"""What control tells of a request arrives at its client.

Each test fills every field with its own value, so that one that is added and forgotten, or crossed with another, fails.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sage.controlplane.v1 import common_pb2, decision_pb2
from sage_wire import durations
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished, SloOutcome
from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.control.requests.placement import Placement
from scheduler_svc.control.requests.prompt_facts import PromptFacts
from scheduler_svc.transport import events
from tests.unit.transport.completeness import unset
from tests.unit.transport.filled_values import DECISION, EPOCH, REQUEST, the_instance

LIVE = LiveRequest(request=REQUEST, digest=b"", detached=False)


def test_accepted() -> None:
    live = LiveRequest(request=REQUEST, digest=b"", detached=False, warnings=("top_p has no effect",))
    wire = events.accepted(live, attached=True, expected_wait_s=1.5, receipt=b"signed").accepted
    assert unset(wire) == set()
    assert (wire.request_id, wire.model, wire.prompt_tokens) == ("r", "m", 3)
    assert wire.attached
    assert durations.from_wire(wire.expected_wait) == 1.5
    assert list(wire.warnings) == ["top_p has no effect"]


def test_scheduled() -> None:
    placement = Placement(decision=DECISION, from_token=5)
    wire = events.scheduled(placement, the_instance().instance("d"), LIVE, EPOCH).scheduled
    assert unset(wire) == {"direct_delivery", "choice"}
    assert wire.resumed_from_token == 5
    assert unset(wire.decision) == {"candidates"}, "candidates are for explain"


def test_a_decision() -> None:
    wire = decision_pb2.Decision()
    events.fill_decision(wire, DECISION, the_instance().instance("d"), LIVE, EPOCH, with_candidates=True)
    assert unset(wire) == set()
    assert (wire.request_id, wire.tenant, wire.policy) == ("r", "t", "fifo")
    assert (wire.phase, wire.phase_reason) == (common_pb2.PHASE_DECODING, "long prompt")
    assert (wire.instance_id, wire.prefill_instance_id) == ("d", "p")
    assert wire.instance_role == common_pb2.INSTANCE_ROLE_DECODING
    assert wire.parallelism_config.gpu_count == 24
    assert list(wire.reasons) == ["earliest predicted finish", "second"]
    assert (wire.attempt.epoch, wire.attempt.number) == (EPOCH, 12)
    assert (wire.prefill_attempt.epoch, wire.prefill_attempt.number) == (EPOCH, 11)
    assert (wire.reserved_tokens, wire.prefill_reserved_tokens) == (48, 32)
    assert durations.from_wire(wire.waited) == 1.5
    assert (wire.queue_length, wire.candidates_considered) == (6, 2)
    predicted = wire.prediction
    assert unset(predicted) == set()
    assert [durations.from_wire(d) for d in (predicted.start, predicted.first_token, predicted.finish)] == [
        0.25,
        0.5,
        4.0,
    ]
    assert (predicted.output_tokens, predicted.cost) == (8, 0.125)
    chosen, other = wire.candidates
    assert (chosen.instance_id, chosen.chosen, dict(chosen.scores)) == ("d", True, {"start_s": 0.25})
    assert (other.instance_id, other.filtered_by, other.filter_reason) == ("e", "room", "full")


def test_a_decision_outlives_its_instance() -> None:
    wire = decision_pb2.Decision()
    events.fill_decision(wire, DECISION, None, LIVE, EPOCH, with_candidates=False)
    assert unset(wire) == {"candidates", "instance_role", "parallelism_config"}


def logprob(token_id: int) -> common_pb2.TokenLogprobs:
    return common_pb2.TokenLogprobs(candidates=[common_pb2.TokenLogprob(token_id=token_id, logprob=-0.5)])


def test_tokens() -> None:
    logprobs = [logprob(5).SerializeToString(), logprob(6).SerializeToString()]
    wire = events.tokens(TokenSlice(12, 3, [5, 6], 7, "ab", logprobs), LIVE, EPOCH).tokens
    assert unset(wire) == {"choice", "cached_prompt_tokens", "prompt_logprobs"}
    assert (wire.attempt.epoch, wire.attempt.number, wire.first_index) == (EPOCH, 12, 3)
    assert (list(wire.token_ids), wire.text_offset, wire.text) == ([5, 6], 7, "ab")
    assert list(wire.logprobs) == [logprob(5), logprob(6)]


@pytest.mark.parametrize(("position", "told"), [(0, True), (3, False)])
def test_what_is_known_of_the_prompt_comes_with_the_first_tokens(position: int, told: bool) -> None:
    live = LiveRequest(request=REQUEST, digest=b"", detached=False)
    live.prompt = PromptFacts(cached_tokens=2, logprobs=[b"", logprob(5).SerializeToString()])
    wire = events.tokens(TokenSlice(12, position, [5], 0, "a", None), live, EPOCH).tokens
    assert wire.HasField("cached_prompt_tokens") is told
    assert list(wire.prompt_logprobs) == ([common_pb2.TokenLogprobs(), logprob(5)] if told else [])


def test_the_end_of_one_choice() -> None:
    live = LiveRequest(request=replace(REQUEST, key=REQUEST.key._replace(choice=2)), digest=b"", detached=False)
    wire = events.choice_finished(the_end(), live).choice_finished
    assert wire.choice == 2
    assert wire.finished == events.finished(the_end()).finished


def test_tokens_of_which_some_have_no_log_probabilities() -> None:
    pieces = [b"", logprob(6).SerializeToString()]
    wire = events.tokens(TokenSlice(12, 3, [5, 6], 7, "ab", pieces), LIVE, EPOCH).tokens
    assert list(wire.logprobs) == [common_pb2.TokenLogprobs(), logprob(6)]


def the_end(**changes: object) -> Finished:
    fields: dict[str, object] = {
        "finish_reason": "stop",
        "stop_string": "",
        "stop_token_id": 2,
        "prompt_tokens": 3,
        "completion_tokens": 9,
        "cached_prompt_tokens": 1,
        "attempts": 2,
        "queue_s": 0.5,
        "ttft_s": 1.0,
        "prefill_s": 0.25,
        "transfer_s": 0.125,
        "decode_s": 2.0,
        "total_s": 3.5,
        "cost": 0.75,
        "slo": (SloOutcome(target="ttft", wanted_s=2.0, measured_s=1.0, met=True),),
    }
    return Finished(**{**fields, **changes})  # type: ignore[arg-type]


def test_finished() -> None:
    wire = events.finished(the_end()).finished
    assert unset(wire) == set()
    assert wire.finish_reason == common_pb2.FINISH_REASON_STOP
    assert wire.stop_token_id == 2
    assert (wire.usage.prompt_tokens, wire.usage.completion_tokens, wire.usage.cached_prompt_tokens) == (3, 9, 1)
    assert (wire.attempts, wire.cost) == (2, 0.75)
    timings = wire.timings
    assert unset(timings) == set()
    assert durations.from_wire(timings.queue) == 0.5
    assert durations.from_wire(timings.time_to_first_token) == 1.0
    assert durations.from_wire(timings.prefill) == 0.25
    assert durations.from_wire(timings.transfer) == 0.125
    assert durations.from_wire(timings.decode) == 2.0
    assert durations.from_wire(timings.total) == 3.5
    [slo] = wire.slo
    assert (slo.target, durations.from_wire(slo.wanted), durations.from_wire(slo.measured), slo.met) == (
        "ttft",
        2.0,
        1.0,
        True,
    )


def test_what_stopped_it_is_one_thing() -> None:
    assert events.finished(the_end(stop_string="x")).finished.WhichOneof("stop") == "stop_string"
    assert events.finished(the_end(stop_token_id=0)).finished.WhichOneof("stop") == "stop_token_id"
    assert events.finished(the_end(stop_token_id=None)).finished.WhichOneof("stop") is None


def test_times_that_did_not_happen_are_absent() -> None:
    wire = events.finished(the_end(ttft_s=None, prefill_s=None, transfer_s=None, decode_s=None)).finished
    assert unset(wire.timings) == {"time_to_first_token", "prefill", "transfer", "decode"}
