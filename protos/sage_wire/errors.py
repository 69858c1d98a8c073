"""The error catalogue: every reason that the control plane gives, and the gRPC status that carries it.

A reason travels as ``google.rpc.ErrorInfo.reason`` with the domain ``DOMAIN``.  Reasons are stable: clients may compare
them.  ``docs/ends-of-a-request.md`` says when each one is given.
"""

from __future__ import annotations

from enum import Enum

import grpc

DOMAIN = "sage.controlplane"


class ErrorReason(Enum):
    """A reason; its value is the gRPC status and the name on the wire."""

    # The caller's fault: never retried, never counted against an instance.
    INVALID_REQUEST = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    UNKNOWN_POLICY = (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_POLICY")
    UNKNOWN_MODEL = (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL")
    REQUEST_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND")
    BATCH_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "BATCH_NOT_FOUND")
    FILE_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND")
    INSTANCE_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND")
    REQUEST_CONFLICT = (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_CONFLICT")
    INVALID_TRANSITION = (grpc.StatusCode.FAILED_PRECONDITION, "INVALID_TRANSITION")
    UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    PERMISSION_DENIED = (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    NO_JOURNAL = (grpc.StatusCode.FAILED_PRECONDITION, "NO_JOURNAL")
    NOT_IMPLEMENTED = (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")
    # The state of the fleet: trying again later may help.
    QUEUE_FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    LIMIT_REACHED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED")
    TENANT_LIMIT = (grpc.StatusCode.RESOURCE_EXHAUSTED, "TENANT_LIMIT")
    OVERLOADED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    NO_INSTANCE = (grpc.StatusCode.UNAVAILABLE, "NO_INSTANCE")
    SHUTTING_DOWN = (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    RECOVERING = (grpc.StatusCode.UNAVAILABLE, "RECOVERING")
    NOT_LEADER = (grpc.StatusCode.UNAVAILABLE, "NOT_LEADER")
    JOURNAL_UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "JOURNAL_UNAVAILABLE")
    # An accepted request did not finish.
    DEADLINE_EXCEEDED = (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    CANCELLED = (grpc.StatusCode.CANCELLED, "CANCELLED")
    GENERATION_FAILED = (grpc.StatusCode.ABORTED, "GENERATION_FAILED")
    MODEL_CHANGED = (grpc.StatusCode.ABORTED, "MODEL_CHANGED")
    OUTPUT_LOST = (grpc.StatusCode.ABORTED, "OUTPUT_LOST")
    # Between executor and scheduler.
    PROTOCOL_VERSION = (grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VERSION")
    INVALID_REGISTRATION = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REGISTRATION")
    DUPLICATE_INSTANCE = (grpc.StatusCode.ALREADY_EXISTS, "DUPLICATE_INSTANCE")
    UNKNOWN_SESSION = (grpc.StatusCode.FAILED_PRECONDITION, "UNKNOWN_SESSION")
    # Any unforeseen error: the message is fixed, the stack is in the scheduler's log.
    INTERNAL = (grpc.StatusCode.INTERNAL, "INTERNAL")

    @property
    def status(self) -> grpc.StatusCode:
        """The gRPC status that carries the reason."""
        return self.value[0]

    @property
    def code(self) -> str:
        """The stable name on the wire."""
        return self.value[1]

    @classmethod
    def from_code(cls, code: str) -> ErrorReason | None:
        """Return the reason of this name, or None for a name that only a newer peer knows."""
        return next((reason for reason in cls if reason.code == code), None)
