"""Converts a gRPC status to an exception: by its stable reason, or else by its code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from sage_client import _errors as e
from sage_wire.errors import DOMAIN, ErrorReason

BY_REASON: dict[ErrorReason, type[e.SageError]] = {
    ErrorReason.INVALID_REQUEST: e.InvalidRequestError,
    ErrorReason.UNKNOWN_POLICY: e.UnknownPolicyError,
    ErrorReason.UNKNOWN_MODEL: e.UnknownModelError,
    ErrorReason.REQUEST_NOT_FOUND: e.RequestNotFoundError,
    ErrorReason.BATCH_NOT_FOUND: e.BatchNotFoundError,
    ErrorReason.FILE_NOT_FOUND: e.StoredFileNotFoundError,
    ErrorReason.INSTANCE_NOT_FOUND: e.InstanceNotFoundError,
    ErrorReason.REQUEST_CONFLICT: e.RequestConflictError,
    ErrorReason.INVALID_TRANSITION: e.InvalidStateError,
    ErrorReason.UNAUTHENTICATED: e.AuthenticationError,
    ErrorReason.PERMISSION_DENIED: e.AuthenticationError,
    ErrorReason.NOT_IMPLEMENTED: e.NotSupportedError,
    ErrorReason.NO_JOURNAL: e.NoJournalError,
    ErrorReason.QUEUE_FULL: e.QueueFullError,
    ErrorReason.TENANT_LIMIT: e.TenantLimitError,
    ErrorReason.OVERLOADED: e.OverloadedError,
    ErrorReason.LIMIT_REACHED: e.LimitReachedError,
    ErrorReason.NO_INSTANCE: e.NoInstanceError,
    ErrorReason.SHUTTING_DOWN: e.ShuttingDownError,
    ErrorReason.DEADLINE_EXCEEDED: e.DeadlineExceededError,
    ErrorReason.CANCELLED: e.RequestCancelledError,
    ErrorReason.GENERATION_FAILED: e.GenerationFailedError,
    ErrorReason.MODEL_CHANGED: e.ModelChangedError,
    ErrorReason.RECOVERING: e.RecoveringError,
    ErrorReason.NOT_LEADER: e.NotLeaderError,
    ErrorReason.JOURNAL_UNAVAILABLE: e.JournalUnavailableError,
    ErrorReason.OUTPUT_LOST: e.OutputLostError,
    ErrorReason.INTERNAL: e.InternalError,
}
"""Exceptions by stable reason.  Reasons used only between executor and scheduler are left out: the code decides."""

BY_CODE: dict[grpc.StatusCode, type[e.SageError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: e.InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: e.InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: e.NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: e.RequestConflictError,
    grpc.StatusCode.FAILED_PRECONDITION: e.InvalidStateError,
    grpc.StatusCode.UNAUTHENTICATED: e.AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: e.AuthenticationError,
    grpc.StatusCode.UNIMPLEMENTED: e.NotSupportedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: e.TryAgainError,
    grpc.StatusCode.UNAVAILABLE: e.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: e.WaitTimeoutError,
    grpc.StatusCode.CANCELLED: e.UnavailableError,
    grpc.StatusCode.ABORTED: e.GenerationFailedError,
}
"""Exceptions by code, for statuses without a reason.

DEADLINE_EXCEEDED is then the timeout that the client set for the call, and CANCELLED a call that gRPC dropped because
the server stopped as the call reached it.
"""

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_DETAILS_KEY = "grpc-status-details-bin"
_M = TypeVar("_M", bound=Message)


def error_from_rpc(error: grpc.aio.AioRpcError, *, request_id: str = "", timeout_s: float | None = None) -> e.SageError:
    """Return the exception for a failed call.  ``timeout_s``: of the call, which the error of its end names."""
    code, details = error.code(), _details(error)
    silent = code is grpc.StatusCode.DEADLINE_EXCEEDED and not details.details
    return _error(code, _silence(timeout_s) if silent else error.details(), details, request_id)


def _silence(timeout_s: float | None) -> str:
    return "the scheduler did not answer " + ("in time" if timeout_s is None else f"within {timeout_s:.3g} s")


def error_from_status(status: status_pb2.Status, *, request_id: str = "") -> e.SageError:
    """Return the exception for a failed request of a session."""
    return _error(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status, request_id)


def is_transport_break(error: e.SageError) -> bool:
    """Return whether the connection failed, as opposed to an error that the server returned."""
    return isinstance(error, e.UnavailableError) and not error.reason


def _error(code: grpc.StatusCode, message: str | None, details: status_pb2.Status, request_id: str) -> e.SageError:
    info = next(_unpacked(details, error_details_pb2.ErrorInfo), None)
    ours = info if info is not None and info.domain == DOMAIN else None
    made = _class_of(code, ours)(
        message or f"the call failed with {code.name}",
        reason=ours.reason if ours else "",
        status=code.name,
        request_id=request_id,
        metadata=dict(ours.metadata) if ours else None,
    )
    _add_details(made, details)
    return made


def _class_of(code: grpc.StatusCode, info: error_details_pb2.ErrorInfo | None) -> type[e.SageError]:
    reason = ErrorReason.from_code(info.reason) if info else None
    if reason is not None and reason in BY_REASON:
        return BY_REASON[reason]
    return BY_CODE.get(code, e.InternalError)


def _add_details(made: e.SageError, details: status_pb2.Status) -> None:
    if isinstance(made, e.InvalidRequestError):
        made.violations = tuple(
            e.FieldViolation(field=v.field, description=v.description)
            for bad in _unpacked(details, error_details_pb2.BadRequest)
            for v in bad.field_violations
        )
    if isinstance(made, e.TryAgainError):
        retry = next(_unpacked(details, error_details_pb2.RetryInfo), None)
        made.retry_after_s = retry.retry_delay.ToTimedelta().total_seconds() if retry else None


def _details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Return the detailed status; empty if there is none or it does not decode."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _unpacked(status: status_pb2.Status, kind: type[_M]) -> Iterator[_M]:
    for any_ in status.details:
        message = kind()
        if any_.Unpack(message):
            yield message
