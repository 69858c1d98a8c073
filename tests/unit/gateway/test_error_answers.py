"""Each error of the SDK has an HTTP answer in OpenAI's form."""

from __future__ import annotations

import inspect
import json

import pytest

import sage_client as sage
from sage_client import FieldViolation
from sage_gateway.error_answers import http_error, openai_field


def made(kind: type[sage.SageError]) -> sage.SageError:
    return sage.TlsRequiredError("host:1") if kind is sage.TlsRequiredError else kind("what happened", reason="WHY")


STATUSES = {
    sage.InvalidRequestError: 400,
    sage.UnknownPolicyError: 400,
    sage.BatchFailedError: 400,
    sage.AuthenticationError: 401,
    sage.NotFoundError: 404,
    sage.UnknownModelError: 404,
    sage.RequestNotFoundError: 404,
    sage.InstanceNotFoundError: 404,
    sage.BatchNotFoundError: 404,
    sage.StoredFileNotFoundError: 404,
    sage.DeadlineExceededError: 408,
    sage.WaitTimeoutError: 408,
    sage.RequestConflictError: 409,
    sage.InvalidStateError: 409,
    sage.QueueFullError: 429,
    sage.TenantLimitError: 429,
    sage.OverloadedError: 429,
    sage.LimitReachedError: 429,
    sage.RequestCancelledError: 499,
    sage.NotSupportedError: 501,
    sage.NoJournalError: 501,
    sage.TryAgainError: 503,
    sage.NoInstanceError: 503,
    sage.ShuttingDownError: 503,
    sage.RecoveringError: 503,
    sage.NotLeaderError: 503,
    sage.UnavailableError: 503,
    sage.JournalUnavailableError: 503,
    sage.NotLeaderError: 503,
}
ALL = [
    each
    for each in vars(sage).values()
    if inspect.isclass(each) and issubclass(each, sage.SageError) and each is not sage.SageError
]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_its_status(kind: type[sage.SageError]) -> None:
    answer = http_error(made(kind))
    assert answer.status == STATUSES.get(kind, 500)
    error = json.loads(answer.body())["error"]
    assert error["type"].endswith("_error")
    assert error["code"] in ("WHY", None)


def test_a_caller_without_permission_is_another_than_one_without_a_token() -> None:
    forbidden = sage.AuthenticationError("not yours", reason="PERMISSION_DENIED", status="PERMISSION_DENIED")
    assert http_error(forbidden).status == 403


def test_retries_are_told_when() -> None:
    full = sage.QueueFullError("full")
    full.retry_after_s = 2.2
    assert http_error(full).headers() == [(b"retry-after", b"3")]
    assert http_error(sage.NoInstanceError("none")).headers() == [(b"retry-after", b"1")]


def test_clients_are_told_not_to_repeat_a_request_whose_deadline_passed() -> None:
    assert http_error(sage.DeadlineExceededError("late")).headers() == [(b"x-should-retry", b"false")]


def test_the_first_field_at_fault_is_named() -> None:
    violations = [
        FieldViolation(field="spec.sampling.top_p", description="is 2"),
        FieldViolation(field="x", description=""),
    ]
    answer = http_error(sage.InvalidRequestError.of(violations))
    assert (answer.status, answer.param) == (400, "top_p")
    assert "is 2" in answer.message


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("spec.sampling.stop[0]", "stop"),
        ("spec.sampling.logit_bias[7]", "logit_bias"),
        ("spec.sampling.structured_output.json_schema", "response_format"),
        ("spec.tokens.ids", "prompt"),
        ("spec.model", "model"),
        ("spec.deadline", "sage.deadline"),
        ("tenant", "sage.tenant"),
        ("request_id", "sage.request_id"),
        ("prompt_logprobs", "prompt_logprobs"),
        ("priority", "priority"),
    ],
)
def test_fields_have_the_names_that_the_caller_used(ours: str, theirs: str) -> None:
    assert openai_field(ours) == theirs
