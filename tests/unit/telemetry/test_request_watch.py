"""What is noted of a request's attempts, split ones included, and what is counted, without a service around it."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from types import FunctionType, ModuleType
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sage_telemetry import catalogue
from sage_telemetry.catalogue import BOTH, SCHEDULER
from sage_telemetry.instrument import Instrument
from sage_telemetry.meter import Meter
from sage_telemetry.resource import Identity
from sage_telemetry.spans import SpanWriter, empty_request
from sage_telemetry.trace_context import parent_of
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.control.requests.outcome import Outcome
from scheduler_svc.control.requests.placement import Placement
from scheduler_svc.control.requests.submission import ChatPrompt, Submission, TextPrompt
from scheduler_svc.control.requests.tokenizers import ChatTurn, Conversation
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.continuation import ContinuationMode
from scheduler_svc.domain.decision import Candidate, Decision, Phase, Prediction, PrefillLeg
from scheduler_svc.domain.errors import DeadlineExceeded, GenerationFailed, QueueFull, RequestCancelled
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.request import Priority, Request, RequestKey, RequestState, Sampling
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.telemetry.observer import TelemetryObserver
from scheduler_svc.telemetry.request_content import messages
from scheduler_svc.telemetry.request_notes import RequestNotes
from scheduler_svc.telemetry.request_spans import RequestSpans
from tests.support.otlp_values import values
from tests.unit.telemetry.finished_request import finished_with

KEY = RequestKey(tenant="blue", request_id="7")
PREFILL, DECODE = 11, 12


class Kept:
    """In the span export's place."""

    def __init__(self) -> None:
        self.sources: list[RequestSpans] = []

    def put(self, source: RequestSpans) -> None:
        self.sources.append(source)


class Watched:
    """A split request, driven by hand."""

    def __init__(self, *, content: bool = False, prompt: str = "x", candidates: Sequence[Candidate] = ()) -> None:
        self.kept = Kept()
        self.meter = Meter((*BOTH, *SCHEDULER))
        self.scheduler = Scheduler(SchedulerSettings(), PolicyCatalogue())
        spans: Any = self.kept
        self.observer = observer = TelemetryObserver(
            self.scheduler, self.meter, spans, epoch=3, sampling_ratio=1.0, content=content
        )
        submission = Submission(key=KEY, digest=b"", model="sim", prompt=TextPrompt(text=prompt), sampling={})
        self.watch = observer.arrived(submission, 0.0)
        request = Request(key=KEY, model="sim", prompt_token_ids=(1, 2), sampling=Sampling(), arrived_at=0.0)
        self.live = LiveRequest(request=request, digest=b"", detached=False, observed=self.watch)
        self.watch.accepted(self.live, 0.1)
        self.decision = decision(candidates)
        observer.scheduled([self.decision], 0.001)
        self.watch.decided(self.live, self.decision, 1.0)
        self.live.placements.append(Placement(decision=self.decision, from_token=0))

    def send(self, number: int, phase: Phase, at: float) -> dict[str, str]:
        self.attempt_number = number
        instance_id = "p" if phase is Phase.PREFILLING else "d"
        sent = self.watch.sent(self.live, at, attempt_number=number, instance_id=instance_id, phase=phase)
        return dict(sent)

    def report(self, cause: EndCause, at: float, message: str = "", *, engine_time_s: float = 0.0) -> None:
        number = self.attempt_number
        end = AttemptEnd(attempt_number=number, cause=cause, message=message, engine_time_s=engine_time_s)
        self.watch.reported(self.live, self.decision, end, at)

    def end(self, state: RequestState, outcome: Outcome) -> None:
        self.live.state, self.live.outcome = state, outcome
        self.watch.ended(self.live, 9.0)

    def notes(self) -> RequestNotes:
        """Ends the request."""
        self.end(RequestState.FAILED, GenerationFailed("over", attempts=1))
        (source,) = self.kept.sources
        return source._notes

    def span(self, name: str) -> Span:
        """As the exporter's thread writes it, of what was handed in last."""
        writer = SpanWriter(empty_request(Identity(service="scheduler", instance_id="test")))
        self.kept.sources[-1].write_spans(writer)
        (found,) = [span for span in writer.request.resource_spans[0].scope_spans[0].spans if span.name == name]
        return found

    def label_sets(self, instrument: Instrument) -> set[tuple[str, ...]]:
        return set(self._series(instrument, "_total"))

    def counted(self, instrument: Instrument, *labels: str) -> float:
        return self._series(instrument, "_total").get(labels, 0.0)

    def summed(self, instrument: Instrument, *labels: str) -> float:
        """The sum of a histogram's values."""
        return self._series(instrument, "_sum")[labels]

    def _series(self, instrument: Instrument, suffix: str) -> dict[tuple[str, ...], float]:
        """The samples of that suffix by label values."""
        family = dict(self.meter.read())[instrument]
        return {tuple(each.labels.values()): each.value for each in family.samples if each.name.endswith(suffix)}


def decision(candidates: Sequence[Candidate]) -> Decision:
    return Decision(
        key=KEY,
        attempt_number=DECODE,
        policy="fifo",
        instance_id="d",
        phase=Phase.DECODING,
        phase_reason="long prompt",
        engine_priority=0,
        prediction=Prediction(start_s=0.0, first_token_s=0.5, finish_s=1.0, output_tokens=8, cost=2.0),
        reserved_tokens=16,
        decided_at=1.0,
        waited_s=1.0,
        queue_length=0,
        rule="earliest_finish",
        reasons=("because",),
        candidates=candidates,
        candidates_considered=2,
        prefill=PrefillLeg(instance_id="p", attempt_number=PREFILL, reserved_tokens=16),
    )


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_both_legs_are_attempts_of_one_request_with_contexts_of_their_own(watched: Watched) -> None:
    first = parent_of(watched.send(PREFILL, Phase.PREFILLING, 1.0))
    watched.report(EndCause.FINISHED, 2.0)
    second = parent_of(watched.send(DECODE, Phase.DECODING, 2.0))
    assert first is not None
    assert second is not None
    assert first.trace_id == second.trace_id
    assert first.span_id != second.span_id
    prefill, decode = watched.notes().attempts
    assert (prefill.end, prefill.failure, prefill.ended_at) == ("finished", None, 2.0)
    assert (decode.retries, decode.end) == (None, "failed")


def test_a_decode_instance_that_computes_the_prompt_itself_makes_up_for_the_leg_that_failed(watched: Watched) -> None:
    watched.send(PREFILL, Phase.PREFILLING, 1.0)
    watched.report(EndCause.FAILED, 2.0, "out of memory")
    watched.send(DECODE, Phase.HYBRID, 2.0)
    prefill, whole = watched.notes().attempts
    assert (prefill.end, prefill.failure) == ("failed", "out of memory")
    assert whole.retries is prefill


def test_a_lost_prefill_leg_is_made_up_for_as_well(watched: Watched) -> None:
    watched.send(PREFILL, Phase.PREFILLING, 1.0)
    watched.send(DECODE, Phase.HYBRID, 2.0)
    prefill, whole = watched.notes().attempts
    assert (prefill.end, prefill.ended_at) == ("lost", 2.0)
    assert whole.retries is prefill


def test_a_prefill_leg_that_did_its_part_is_not_to_blame_for_what_follows(watched: Watched) -> None:
    watched.send(PREFILL, Phase.PREFILLING, 1.0)
    watched.report(EndCause.FINISHED, 2.0)
    watched.watch.requeued(watched.live, FailoverCause.LOST, "d lost its session", 2.0)
    (prefill,) = watched.notes().attempts
    assert (prefill.end, prefill.failure) == ("finished", None)


def test_what_arrived_incomplete_is_a_failed_attempt_although_its_executor_finished(watched: Watched) -> None:
    watched.send(DECODE, Phase.HYBRID, 1.0)
    watched.report(EndCause.FINISHED, 2.0)
    watched.watch.requeued(watched.live, FailoverCause.MISMATCH, "tokens are missing", 2.0)
    (attempt,) = watched.notes().attempts
    assert (attempt.end, attempt.failure) == ("mismatch", "tokens are missing")
    assert watched.counted(catalogue.FAILOVERS, "sim", "mismatch") == 1


@pytest.mark.parametrize("mode", list(ContinuationMode))
def test_an_attempt_that_goes_on_after_delivered_tokens_is_counted_by_how_it_does(
    watched: Watched, mode: ContinuationMode
) -> None:
    watched.send(DECODE, Phase.HYBRID, 1.0)
    assert watched.label_sets(catalogue.CONTINUATIONS) == set(), "the first attempt continues nothing"
    watched.live.continuation = mode
    watched.send(DECODE, Phase.HYBRID, 2.0)
    assert watched.counted(catalogue.CONTINUATIONS, "sim", mode.value) == 1
    assert watched.notes().attempts[-1].continuation == mode.value


def test_what_the_engine_says_of_an_invalid_request_is_not_repeated(watched: Watched) -> None:
    watched.send(DECODE, Phase.HYBRID, 1.0)
    watched.report(EndCause.INVALID, 2.0, "'my secret' is no grammar")
    (attempt,) = watched.notes().attempts
    assert attempt.failure == "the engine found the request invalid"


def test_what_alerts_look_for_is_there_at_zero_as_soon_as_its_model_is(watched: Watched) -> None:
    watched.scheduler.register(InstanceSpec(instance_id="i0", model="sim"), 0.0)
    watched.observer.begin_models()
    models = {"sim", "(unknown)"}
    assert watched.label_sets(catalogue.FAILOVERS) == {(m, cause.value) for m in models for cause in FailoverCause}
    classes = [priority.name.lower() for priority in Priority]
    assert watched.label_sets(catalogue.SLO) == {
        (m, name, "any", result) for m in models for name in classes for result in ("met", "missed")
    }
    assert ("sim", "normal", "refused", "queue_full") in watched.label_sets(catalogue.REQUESTS)
    assert watched.counted(catalogue.FAILOVERS, "sim", "lost") == 0


def test_a_handoff_is_timed(watched: Watched) -> None:
    watched.watch.handed_over(watched.live, 0.04)
    assert watched.summed(catalogue.PD_HANDOFF, "sim") == 0.04


def test_what_attempts_cost_is_added_up(watched: Watched) -> None:
    for cost in (2.0, 4.0):
        watched.watch.charged(watched.live, cost)
    assert watched.counted(catalogue.COST, "sim", "normal") == 6.0


def test_a_quarantined_request_is_counted(watched: Watched) -> None:
    watched.watch.quarantined(watched.live, 4.0)
    assert watched.counted(catalogue.QUARANTINED, "sim") == 1.0


def test_nothing_of_the_prompt_is_kept_in_the_notes(watched: Watched) -> None:
    assert watched.notes().content is None


def held_by(root: object) -> set[int]:
    """Ids of everything that stays in memory because of it, classes, functions and modules apart."""
    seen: set[int] = set()
    left = [root]
    while left:
        each = left.pop()
        if id(each) not in seen and not isinstance(each, type | ModuleType | FunctionType):
            seen.add(id(each))
            left += gc.get_referents(each)
    return seen


def test_what_waits_for_the_receiver_holds_neither_the_request_nor_its_decisions_nor_an_error(watched: Watched) -> None:
    watched.notes()
    (source,) = watched.kept.sources
    held = held_by(source)
    assert id(source._notes) in held
    for each in (watched.live, watched.live.output, watched.live.outcome, watched.decision):
        assert id(each) not in held, type(each)


def test_a_refusals_error_is_not_held_either(watched: Watched) -> None:
    submission = Submission(key=KEY, digest=b"", model="sim", prompt=TextPrompt(text="secret"), sampling={})
    error = QueueFull("sim", 1, 1.0)
    watched.observer.arrived(submission, 0.0).refused(error, 1.0)
    (source,) = watched.kept.sources
    assert not {id(error), id(submission), id(submission.prompt)} & held_by(source)
    assert watched.span("sage.request").status.message == str(error)


def test_of_many_candidates_the_first_are_kept_and_the_score_of_the_one_taken() -> None:
    many = [Candidate(instance_id=f"i{n}", chosen=n == 40, scores={"start": float(n)}) for n in range(50)]
    watched = Watched(candidates=many)
    watched.notes()
    span = watched.span("sage.decision")
    assert [values(event.attributes)["sage.instance.id"] for event in span.events] == [f"i{n}" for n in range(16)]
    assert values(span.attributes)["sage.decision.score"] == 40.0


def test_what_was_asked_and_answered_is_cut_before_it_waits() -> None:
    watched = Watched(content=True, prompt="p" * 20_000)
    watched.live.output.append(DECODE, 0, [1], "o" * 20_000, None)
    watched.notes()
    (source,) = watched.kept.sources
    assert source._notes.content == [("user", "p" * 16_384)]
    assert source._end.output == "o" * 16_384
    told = values(watched.span("sage.request").attributes)
    assert told["gen_ai.output.messages"] == json.dumps(
        [{"role": "assistant", "parts": [{"type": "text", "content": "o" * 16_384}], "finish_reason": "error"}]
    )


@pytest.mark.parametrize(
    ("state", "outcome", "reason"),
    [
        (RequestState.FINISHED, finished_with("length"), "length"),
        (RequestState.FINISHED, finished_with("stop"), "stop"),
        (RequestState.EXPIRED, DeadlineExceeded("while it ran"), "error"),
        (RequestState.CANCELLED, RequestCancelled("enough"), "cancelled"),
    ],
)
def test_an_output_says_why_it_ended(state: RequestState, outcome: Outcome, reason: str) -> None:
    watched = Watched(content=True)
    watched.live.output.append(DECODE, 0, [1], "a word", None)
    watched.end(state, outcome)
    told = values(watched.span("sage.request").attributes)
    (message,) = json.loads(told["gen_ai.output.messages"])
    assert message["finish_reason"] == reason
    (asked,) = json.loads(told["gen_ai.input.messages"])
    assert "finish_reason" not in asked


def test_the_turns_of_a_conversation_share_the_room() -> None:
    turns = tuple(ChatTurn(role="user", text="t" * 10_000) for _ in range(3))
    found = messages(ChatPrompt(conversation=Conversation(turns=turns)))
    assert [len(text) for _, text in found] == [10_000, 6_380]


def test_a_request_that_stated_no_target_names_none_that_it_missed(watched: Watched) -> None:
    watched.notes()
    told = values(watched.span("sage.request").attributes)
    assert told["sage.slo.met"] is False, "it failed"
    assert "sage.slo.missed" not in told


def test_a_late_word_of_an_attempt_whose_request_is_over_only_costs(watched: Watched) -> None:
    watched.send(DECODE, Phase.HYBRID, 1.0)
    notes = watched.notes()
    watched.report(EndCause.CANCELLED, 10.0)
    assert notes.attempts[0].ended_at == 9.0
    assert len(watched.kept.sources) == 1
