"""Why a session's stream ended, and what that means for the requests on it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import Enum, auto

import grpc

from sage_client._errors import NotLeaderError, RecoveringError, SageError, UnavailableError
from sage_client._status import error_from_rpc

_BREAKS = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
}
"""Statuses, without a reason, of a connection, a proxy or a scheduler that went away."""

_NO_LONGER_ALLOWED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
"""Statuses of an open stream whose token has expired or was taken back: the next stream has the present token."""


_STATUS_LOST = "Internal error from Core"
"""What grpc.aio says for a call that ended while it wrote: the status that the scheduler sent is lost."""


class EndKind(Enum):
    """What the end of a stream means for the requests on it."""

    BROKEN = auto()  # the next stream may attach to them
    UNSETTLED = (
        auto()
    )  # the same, also for those not sent yet: the scheduler hands over or does not lead, or its reason was lost
    UNSUPPORTED = auto()  # the scheduler does not implement sessions, or none of this version
    FULL = auto()  # the scheduler has no room for another session now
    FINAL = auto()  # they end with the error


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionEnd:
    """The end of a session's stream."""

    kind: EndKind
    error: SageError
    answered: bool = False  # the scheduler ended it, but gRPC lost what it said

    def error_of(self, request_id: str) -> SageError:
        """Return the error for one request."""
        made = copy.copy(self.error)
        made.request_id = request_id
        return made


def broken(why: str) -> SessionEnd:
    """Return the end of a stream that broke."""
    return SessionEnd(kind=EndKind.BROKEN, error=UnavailableError(why, status="UNAVAILABLE"))


def end_from_rpc(error: grpc.aio.AioRpcError, *, opened: bool) -> SessionEnd:
    """Return the end for the stream's status; ``opened``: whether Opened had come."""
    failure = error_from_rpc(error)
    code = error.code()
    if code is grpc.StatusCode.UNIMPLEMENTED or (code is grpc.StatusCode.FAILED_PRECONDITION and not opened):
        return SessionEnd(kind=EndKind.UNSUPPORTED, error=failure)
    if code is grpc.StatusCode.INTERNAL and error.details() == _STATUS_LOST:
        lost = broken("the scheduler ended the session, and its reason was lost").error
        return SessionEnd(kind=EndKind.UNSETTLED, error=lost, answered=True)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return broken(failure.message) if opened else SessionEnd(kind=EndKind.FULL, error=failure)
    if isinstance(failure, RecoveringError | NotLeaderError):  # it hands over to the next one, or does not lead
        return SessionEnd(kind=EndKind.UNSETTLED, error=failure)
    if opened and code in _NO_LONGER_ALLOWED:
        return SessionEnd(kind=EndKind.BROKEN, error=failure)
    if code in _BREAKS and not failure.reason:
        return broken(failure.message)
    return SessionEnd(kind=EndKind.FINAL, error=failure)
