"""Each error of the SDK has an HTTP answer in OpenAI's form."""

from __future__ import annotations

import inspect
import json

import pytest
from google.rpc import error_details_pb2, status_pb2

import sage_client as sage
from sage_client import FieldViolation
from sage_client._status import error_from_status
from sage_gateway.error_answers import http_error, openai_field
from sage_wire import durations
from sage_wire.errors import DOMAIN, ErrorReason


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


REASONS = {
    ErrorReason.INVALID_REQUEST: 400,
    ErrorReason.UNKNOWN_POLICY: 400,
    ErrorReason.UNKNOWN_MODEL: 404,
    ErrorReason.REQUEST_NOT_FOUND: 404,
    ErrorReason.BATCH_NOT_FOUND: 404,
    ErrorReason.FILE_NOT_FOUND: 404,
    ErrorReason.INSTANCE_NOT_FOUND: 404,
    ErrorReason.REQUEST_CONFLICT: 409,
    ErrorReason.INVALID_TRANSITION: 409,
    ErrorReason.PROTOCOL_VERSION: 409,
    ErrorReason.UNKNOWN_SESSION: 409,
    ErrorReason.UNAUTHENTICATED: 401,
    ErrorReason.PERMISSION_DENIED: 403,
    ErrorReason.NO_JOURNAL: 501,
    ErrorReason.NOT_IMPLEMENTED: 501,
    ErrorReason.QUEUE_FULL: 429,
    ErrorReason.LIMIT_REACHED: 429,
    ErrorReason.TENANT_LIMIT: 429,
    ErrorReason.OVERLOADED: 429,
    ErrorReason.NO_INSTANCE: 503,
    ErrorReason.SHUTTING_DOWN: 503,
    ErrorReason.RECOVERING: 503,
    ErrorReason.NOT_LEADER: 503,
    ErrorReason.JOURNAL_UNAVAILABLE: 503,
    ErrorReason.DEADLINE_EXCEEDED: 408,
    ErrorReason.CANCELLED: 499,
    ErrorReason.GENERATION_FAILED: 500,
    ErrorReason.MODEL_CHANGED: 500,
    ErrorReason.OUTPUT_LOST: 500,
    ErrorReason.INVALID_REGISTRATION: 400,
    ErrorReason.DUPLICATE_INSTANCE: 409,
    ErrorReason.INTERNAL: 500,
}


def status_of(reason: ErrorReason, **retry: float) -> status_pb2.Status:
    """What the scheduler sends for a reason."""
    found = status_pb2.Status(code=reason.status.value[0], message="what happened")
    found.details.add().Pack(error_details_pb2.ErrorInfo(domain=DOMAIN, reason=reason.code))
    if retry:
        found.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=durations.to_wire(retry["after_s"])))
    return found


@pytest.mark.parametrize("reason", ErrorReason, ids=lambda reason: reason.code)
def test_every_reason_of_the_scheduler_has_its_answer(reason: ErrorReason) -> None:
    answer = http_error(error_from_status(status_of(reason, after_s=2.5)))
    assert answer.status == REASONS[reason]
    assert ("retry-after", "3") in [
        tuple(map(bytes.decode, each)) for each in answer.headers()
    ] or answer.status not in (
        429,
        503,
    )
    error = json.loads(answer.body())["error"]
    assert (error["code"], error["message"]) == (reason.code, "what happened")
    assert error.keys() == {"message", "type", "param", "code"}
    assert json.loads(answer.body("/v1/messages"))["type"] == "error"


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
