"""The table from errors to ErrorReason, and the function that makes a google.rpc.Status of an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from google.protobuf import any_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from sage_wire import durations
from sage_wire.errors import DOMAIN, ErrorReason
from scheduler_svc.access.identity import PermissionDenied, Unauthenticated
from scheduler_svc.control.instances.registration import DuplicateInstance, UnknownSession
from scheduler_svc.control.requests.outcome import RecordedFailure
from scheduler_svc.domain import errors as domain
from scheduler_svc.transport.clipping import clipped

OnEnd: TypeAlias = Callable[[str, ErrorReason], None]
"""Told of each call, or request of a session, that ends with an error: its method and the reason."""


class WireError(Exception):
    """An error that the transport itself finds: a wrong version or handshake, a method that is not implemented."""

    def __init__(self, reason: ErrorReason, text: str) -> None:
        self.reason = reason
        super().__init__(text)


REASONS: dict[type[Exception], ErrorReason] = {
    domain.InvalidRequest: ErrorReason.INVALID_REQUEST,
    domain.UnknownModel: ErrorReason.UNKNOWN_MODEL,
    domain.RequestConflict: ErrorReason.REQUEST_CONFLICT,
    domain.RequestNotFound: ErrorReason.REQUEST_NOT_FOUND,
    domain.BatchNotFound: ErrorReason.BATCH_NOT_FOUND,
    domain.FileNotFound: ErrorReason.FILE_NOT_FOUND,
    domain.InstanceNotFound: ErrorReason.INSTANCE_NOT_FOUND,
    domain.UnknownPolicy: ErrorReason.UNKNOWN_POLICY,
    domain.InvalidTransition: ErrorReason.INVALID_TRANSITION,
    domain.QueueFull: ErrorReason.QUEUE_FULL,
    domain.LimitReached: ErrorReason.LIMIT_REACHED,
    domain.TenantLimitReached: ErrorReason.TENANT_LIMIT,
    domain.Overloaded: ErrorReason.OVERLOADED,
    domain.NoInstance: ErrorReason.NO_INSTANCE,
    domain.ShuttingDown: ErrorReason.SHUTTING_DOWN,
    domain.Recovering: ErrorReason.RECOVERING,
    domain.NotLeader: ErrorReason.NOT_LEADER,
    domain.JournalUnavailable: ErrorReason.JOURNAL_UNAVAILABLE,
    domain.NoJournal: ErrorReason.NO_JOURNAL,
    domain.OutputLost: ErrorReason.OUTPUT_LOST,
    domain.DeadlineExceeded: ErrorReason.DEADLINE_EXCEEDED,
    domain.RequestCancelled: ErrorReason.CANCELLED,
    domain.GenerationFailed: ErrorReason.GENERATION_FAILED,
    domain.ModelChanged: ErrorReason.MODEL_CHANGED,
    domain.PolicyFailed: ErrorReason.INTERNAL,
    DuplicateInstance: ErrorReason.DUPLICATE_INSTANCE,
    UnknownSession: ErrorReason.UNKNOWN_SESSION,
    Unauthenticated: ErrorReason.UNAUTHENTICATED,
    PermissionDenied: ErrorReason.PERMISSION_DENIED,
}
"""The reason of every error that a caller can meet; the reason decides the gRPC status (``sage_wire.errors``).

Tests compare it with the classes in ``domain.errors`` and with the table in ``docs/ends-of-a-request.md``.
"""

FACTS = (
    *("model", "request_id", "instance_id", "policy", "limit_name", "limit", "cause", "attempts"),
    *("leader", "epoch", "batch_id", "file_id"),
)
"""Attributes of errors that clients may use."""

TEXT_LIMIT = 800  # bytes of the message
FACT_LIMIT = 200  # bytes of one value in ErrorInfo's metadata
FIELDS_LIMIT = 1_600  # bytes of all violations together
FIELD_LIMIT = 400  # bytes of a violation's field, and of its description
"""Bounds that keep a status below gRPC's default limit of 8 KiB for trailing metadata.

Above it the client would get an error about the size of the metadata instead of the status.  The message is sent twice,
once in the status itself, and there every byte that is not ASCII takes three.
"""


def reason_of(error: Exception) -> ErrorReason | None:
    """Return the reason of an error; None for one that callers are not to meet, which becomes INTERNAL."""
    if isinstance(error, RecordedFailure):
        return reason_in(status_pb2.Status.FromString(error.status))
    return error.reason if isinstance(error, WireError) else REASONS.get(type(error))


def to_status(error: Exception) -> status_pb2.Status:
    """Return the status that tells the caller of ``error``.

    The status holds the message, ErrorInfo (reason and metadata) and the details that DETAILS adds.  An error that is
    not in REASONS becomes INTERNAL with a fixed message, so that nothing of its cause leaves the process.
    """
    if isinstance(error, RecordedFailure):
        return status_pb2.Status.FromString(error.status)
    reason = reason_of(error)
    if reason is None:
        return _status(ErrorReason.INTERNAL, "internal error; the scheduler's log has the cause", {})
    details = [extra(error) for kind, extra in DETAILS.items() if isinstance(error, kind)]
    return _status(reason, str(error), _facts(error), *details)


def reason_in(status: status_pb2.Status) -> ErrorReason:
    """Return the reason that ``to_status`` gave to a status."""
    info = error_details_pb2.ErrorInfo()
    found = any(detail.Unpack(info) for detail in status.details)
    return (ErrorReason.from_code(info.reason) if found else None) or ErrorReason.INTERNAL


def _status(reason: ErrorReason, text: str, facts: dict[str, str], *details: message.Message) -> status_pb2.Status:
    short = {name: clipped(value, FACT_LIMIT) for name, value in facts.items()}
    info = error_details_pb2.ErrorInfo(reason=reason.code, domain=DOMAIN, metadata=short)
    return status_pb2.Status(
        code=code_pb2.Code.Value(reason.status.name),
        message=clipped(text, TEXT_LIMIT),
        details=[_any(d) for d in (info, *details)],
    )


def _any(detail: message.Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _facts(error: Exception) -> dict[str, str]:
    """Collect ErrorInfo's metadata: those attributes of the error that clients may use."""
    return {name: str(value) for name in FACTS if (value := getattr(error, name, "")) != ""}


def _bad_request(error: Any) -> message.Message:
    """List every field at fault, up to FIELDS_LIMIT bytes; a last entry counts the fields left out."""
    named = error_details_pb2.BadRequest()
    left = FIELDS_LIMIT
    for violation in error.violations:
        field = clipped(violation.field, FIELD_LIMIT)
        description = clipped(violation.description, FIELD_LIMIT)
        left -= len(field.encode()) + len(description.encode())
        if left < 0:
            more = len(error.violations) - len(named.field_violations)
            named.field_violations.add(field="spec", description=f"and {more} more fields at fault")
            break
        named.field_violations.add(field=field, description=description)
    return named


def _unknown_policy(error: Any) -> message.Message:
    """Name ``policy`` as the field at fault."""
    description = clipped(str(error), FIELD_LIMIT)
    violation = error_details_pb2.BadRequest.FieldViolation(field="policy", description=description)
    return error_details_pb2.BadRequest(field_violations=[violation])


def _denied_field(error: PermissionDenied) -> message.Message:
    """Name the field at fault, if one is."""
    named = error_details_pb2.BadRequest()
    if error.field:
        named.field_violations.add(field=error.field, description=clipped(str(error), FIELD_LIMIT))
    return named


def _retry(error: Any) -> message.Message:
    """Say when trying again makes sense: after the expected wait."""
    return error_details_pb2.RetryInfo(retry_delay=durations.to_wire(error.expected_wait_s))


def _precondition(error: Any) -> message.Message:
    """Say which state the object is in."""
    description = clipped(str(error), FIELD_LIMIT)
    violation = error_details_pb2.PreconditionFailure.Violation(type="STATE", description=description)
    return error_details_pb2.PreconditionFailure(violations=[violation])


DETAILS: dict[type[Exception], Callable[[Any], message.Message]] = {
    domain.InvalidRequest: _bad_request,
    domain.UnknownPolicy: _unknown_policy,
    domain.QueueFull: _retry,
    domain.TenantLimitReached: _retry,
    domain.Overloaded: _retry,
    domain.Recovering: _retry,
    domain.NotLeader: _retry,
    domain.JournalUnavailable: _retry,
    domain.InvalidTransition: _precondition,
    PermissionDenied: _denied_field,
}
