"""The error catalogue: every reason the control plane gives, and the gRPC status that carries it.

A reason travels as ``google.rpc.ErrorInfo.reason`` with ``DOMAIN``; it is stable, clients may switch on it.
"""

from __future__ import annotations

from enum import Enum

import grpc

DOMAIN = "sage.controlplane"


class ErrorReason(Enum):
    """Each member's value is its status code."""

    # The caller's fault: never retried, never counted against an instance.
    INVALID_REQUEST = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    UNKNOWN_POLICY = (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_POLICY")
    UNKNOWN_MODEL = (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL")
    REQUEST_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND")
    INSTANCE_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND")
    REQUEST_CONFLICT = (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_CONFLICT")
    INVALID_TRANSITION = (grpc.StatusCode.FAILED_PRECONDITION, "INVALID_TRANSITION")
    UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    NOT_IMPLEMENTED = (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")
    # The fleet's state: trying again may help.
    QUEUE_FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    LIMIT_REACHED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED")
    NO_INSTANCE = (grpc.StatusCode.UNAVAILABLE, "NO_INSTANCE")
    SHUTTING_DOWN = (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    # How an accepted request can end other than by itself.
    DEADLINE_EXCEEDED = (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    CANCELLED = (grpc.StatusCode.CANCELLED, "CANCELLED")
    GENERATION_FAILED = (grpc.StatusCode.ABORTED, "GENERATION_FAILED")
    # Between executor and scheduler.
    PROTOCOL_VERSION = (grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VERSION")
    INVALID_REGISTRATION = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REGISTRATION")
    DUPLICATE_INSTANCE = (grpc.StatusCode.ALREADY_EXISTS, "DUPLICATE_INSTANCE")
    UNKNOWN_SESSION = (grpc.StatusCode.FAILED_PRECONDITION, "UNKNOWN_SESSION")
    # Anything unforeseen: a sanitised message, the stack in the log.
    INTERNAL = (grpc.StatusCode.INTERNAL, "INTERNAL")

    @property
    def status(self) -> grpc.StatusCode:
        return self.value[0]

    @property
    def code(self) -> str:
        """The stable name on the wire."""
        return self.value[1]

    @classmethod
    def from_code(cls, code: str) -> ErrorReason | None:
        return next((reason for reason in cls if reason.code == code), None)
