"""Ends as labels, and whether targets were met."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import CLIENT_GONE, DELIVERY_FAILED, Outcome
from scheduler_svc.control.requests.submission import Submission, TextPrompt
from scheduler_svc.control.watching import attainment as slo
from scheduler_svc.domain import errors
from scheduler_svc.domain.request import Request, RequestKey, RequestState, Sampling
from scheduler_svc.domain.targets import DEFAULT_TARGETS
from scheduler_svc.telemetry.outcomes import REASONS, in_words, reason_of
from scheduler_svc.transport.errors import REASONS as ON_THE_WIRE
from tests.unit.telemetry.finished_request import finished_with

KEY = RequestKey(tenant="blue", request_id="7")


def test_reasons_are_those_of_the_error_catalogue() -> None:
    assert {kind: ON_THE_WIRE[kind].code.lower() for kind in REASONS} == REASONS  # type: ignore[index]


def test_every_error_of_a_request_has_a_reason() -> None:
    of_administration = {
        errors.BatchNotFound,
        errors.FileNotFound,
        errors.InstanceNotFound,
        errors.UnknownPolicy,
        errors.InvalidTransition,
    }
    assert set(errors.SchedulerError.__subclasses__()) - of_administration == REASONS.keys()


@pytest.mark.parametrize("error", [asyncio.CancelledError(), errors.RequestCancelled(CLIENT_GONE)])
def test_a_client_that_left_is_told_apart(error: BaseException) -> None:
    assert reason_of(error) == "client_gone"
    assert reason_of(errors.RequestCancelled("enough")) == "cancelled"


def test_a_stream_that_broke_for_our_own_defect_is_told_apart() -> None:
    assert reason_of(errors.RequestCancelled(DELIVERY_FAILED)) == "delivery_failed"


def test_what_is_said_of_an_error_quotes_nothing() -> None:
    violation = errors.FieldViolation(field="spec.sampling.stop", description="'my secret' is empty")
    assert in_words(errors.InvalidRequest([violation])) == "wrong values of spec.sampling.stop"
    assert in_words(ValueError("my secret")) == "ValueError"


def ended(
    state: RequestState, outcome: Outcome, *, first_token_at: float | None = None, **targets: float
) -> LiveRequest:
    request = Request(
        key=KEY,
        model="sim",
        prompt_token_ids=(1, 2),
        sampling=Sampling(),
        arrived_at=100.0,
        deadline_at=4_000.0,
        deadline_stated=False,
        **targets,  # type: ignore[arg-type]
    )
    live = LiveRequest(request=request, digest=b"", detached=False)
    live.state, live.outcome, live.first_token_at = state, outcome, first_token_at
    return live


FAILED = errors.GenerationFailed("every attempt failed", attempts=5)
CANCELLED = errors.RequestCancelled("enough")


def measured(live: LiveRequest, now: float) -> slo.Attainment:
    return slo.of_ended(live, now, DEFAULT_TARGETS)


def test_a_failed_request_missed_all_it_stated() -> None:
    live = ended(RequestState.FAILED, FAILED, ttft_target_s=1.0, tpot_target_s=0.1)
    assert measured(live, 100.5) == slo.Attainment(missed=("ttft", "tpot", "any"))


def test_a_failed_request_that_stated_nothing_missed_all_the_same() -> None:
    assert measured(ended(RequestState.FAILED, FAILED), 100.5) == slo.Attainment(missed=("any",))


def test_a_cancelled_request_counts_only_where_it_had_missed() -> None:
    live = ended(RequestState.CANCELLED, CANCELLED, ttft_target_s=1.0)
    assert not measured(live, 100.5).counts
    assert measured(live, 102.0) == slo.Attainment(missed=("ttft", "any"))


def test_who_leaves_after_its_classs_default_has_passed_without_a_token_counts_as_missed() -> None:
    live = ended(RequestState.CANCELLED, CANCELLED)
    assert not measured(live, 104.0).counts
    assert measured(live, 106.0) == slo.Attainment(missed=("any",))


def test_who_leaves_after_a_first_token_in_time_does_not_count_however_late() -> None:
    assert not measured(ended(RequestState.CANCELLED, CANCELLED, first_token_at=104.0), 500.0).counts


def test_who_states_a_target_of_its_own_is_not_measured_by_the_default() -> None:
    assert not measured(ended(RequestState.CANCELLED, CANCELLED, ttft_target_s=60.0), 120.0).counts


def test_a_finished_request_is_measured_by_what_it_stated(finished: Outcome) -> None:
    live = ended(RequestState.FINISHED, finished, first_token_at=103.0, ttft_target_s=2.0)
    assert measured(live, 104.0) == slo.Attainment(missed=("ttft", "any"))
    live.request = replace(live.request, ttft_target_s=4.0)
    assert measured(live, 104.0) == slo.Attainment(met=("ttft", "any"))


def test_one_that_stated_nothing_is_measured_by_its_classs_default(finished: Outcome) -> None:
    quick = ended(RequestState.FINISHED, finished, first_token_at=104.0)
    slow = ended(RequestState.FINISHED, finished, first_token_at=106.0)
    assert measured(quick, 110.0) == slo.Attainment(met=("any",))
    assert measured(slow, 110.0) == slo.Attainment(missed=("any",))


def test_a_refused_request_missed_all_it_stated() -> None:
    submission = Submission(
        key=KEY, digest=b"", model="sim", prompt=TextPrompt(text="x"), sampling={}, deadline_s=3.0, ttft_target_s=1.0
    )
    full = errors.QueueFull("sim", 1, 1.0)
    assert slo.of_refused(submission, full) == slo.Attainment(missed=("ttft", "deadline", "any"))


def test_a_model_that_is_known_and_has_no_instance_is_not_the_callers_doing() -> None:
    submission = Submission(key=KEY, digest=b"", model="sim", prompt=TextPrompt(text="x"), sampling={})
    assert slo.of_refused(submission, errors.NoInstance("sim", "lost")) == slo.Attainment(missed=("any",))


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequest([]),
        errors.RequestConflict("7"),
        errors.UnknownModel("smi", ["sim"]),
        asyncio.CancelledError(),
    ],
)
def test_what_was_the_callers_doing_does_not_count(error: BaseException) -> None:
    submission = Submission(key=KEY, digest=b"", model="sim", prompt=TextPrompt(text="x"), sampling={}, deadline_s=3.0)
    assert not slo.of_refused(submission, error).counts


def test_neither_does_a_mistake_that_only_the_engine_notices() -> None:
    assert not measured(ended(RequestState.FAILED, errors.InvalidRequest([]), ttft_target_s=1.0), 102.0).counts


@pytest.fixture
def finished() -> Outcome:
    return finished_with("stop")
