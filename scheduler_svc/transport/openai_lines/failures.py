"""Errors as OpenAI's API has them: a status of HTTP and a body that names the field at fault."""

from __future__ import annotations

import re
from typing import Any

import grpc

from sage_wire.errors import ErrorReason
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest
from scheduler_svc.transport.errors import reason_of, to_status

SERVER_ERROR = (500, "server_error")

STATUSES: dict[grpc.StatusCode, tuple[int, str]] = {
    grpc.StatusCode.INVALID_ARGUMENT: (400, "invalid_request_error"),
    grpc.StatusCode.NOT_FOUND: (404, "not_found_error"),
    grpc.StatusCode.ALREADY_EXISTS: (409, "conflict_error"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (429, "rate_limit_error"),
    grpc.StatusCode.CANCELLED: (499, "cancelled_error"),
    grpc.StatusCode.UNAVAILABLE: (503, "service_unavailable_error"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (408, "timeout_error"),
}
"""Status and type of an error by the gRPC status that stands for it; any other is SERVER_ERROR."""

_FIELDS = (("spec.sampling.", ""), ("spec.chat.", ""), ("spec.chat", "messages"), ("spec.", ""), ("inputs", "input"))
"""How fields of the contract begin, and how those of a body do."""


_MEMBERS = {
    "text": "prompt",
    "tokens.ids": "prompt",
    "template_arguments_json": "chat_template_kwargs",
    "include_stop_in_output": "include_stop_str_in_output",
    "structured_output": "response_format",
}
"""Fields of the contract that have another name in a body."""

_IN_PART = re.compile(r"\.(image|audio)(\.\w+)?$")
"""What a part of a message has in the contract, and not in a body."""


def failure(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return the status and the body that tell of an error."""
    reason = reason_of(error) or ErrorReason.INTERNAL
    status, kind = STATUSES.get(reason.status, SERVER_ERROR)
    param = None
    if isinstance(error, InvalidRequest):
        error = InvalidRequest([_named(each.field, each.description) for each in error.violations])
        param = error.violations[0].field if error.violations else None
    message = to_status(error).message
    return status, {"error": {"message": message, "type": kind, "param": param, "code": reason.code}}


def _named(field: str, description: str) -> FieldViolation:
    """Return a violation whose field is named as in the body."""
    field = _IN_PART.sub("", field)
    for ours, theirs in _FIELDS:
        if field.startswith(ours):
            field = theirs + field[len(ours) :]
            break
    return FieldViolation(field=_MEMBERS.get(field, field), description=description)
