"""The HTTP answer to each error of the SDK, in OpenAI's form."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sage_client as sage

MESSAGES = "/v1/messages"
INVALID = "invalid_request_error"
NOT_AVAILABLE = "service_unavailable_error"

_SAMPLING = "spec.sampling."
_FIELDS = {
    "spec.sampling.stop": "stop",
    "spec.sampling.structured_output": "response_format",
    "spec.sampling.engine_options": "vllm_xargs",
    "spec.tokens.ids": "prompt",
    "spec.tokens": "prompt",
    "spec.text": "prompt",
    "spec.chat": "messages",
    "spec.model": "model",
    "spec.adapter": "model",
    "inputs": "input",
    "adapter": "model",
}
_OPTIONS = frozenset(
    {
        "spec.priority",
        "spec.deadline",
        "spec.ttft_target",
        "spec.tpot_target",
        "spec.cost_budget",
        "spec.session",
        "spec.preferred_instance",
        "deadline",
        "preferred_instance",
        "tenant",
        "request_id",
    }
)


def as_json(value: object) -> bytes:
    """Return a value as JSON.  Half of a surrogate pair, which UTF-8 has no bytes for, is written as an escape."""
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpError:
    """An HTTP answer that says what went wrong."""

    status: int
    kind: str  # OpenAI's `type`
    message: str
    code: str | None = None  # a stable name: the reason in our error catalogue
    param: str | None = None  # the field at fault
    retry_after_s: float | None = None  # seconds to wait before a retry
    retry: bool = True  # whether clients that retry this status by themselves may do so

    def body(self, path: str = "") -> bytes:
        """Return the answer's body, in the form of the API at ``path``: Anthropic's has a type of its own."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return as_json({"type": "error", "error": error} if path.startswith(MESSAGES) else {"error": error})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that belong to the answer beside those of its body."""
        found = []
        if self.retry_after_s is not None:
            found.append((b"retry-after", str(max(1, math.ceil(self.retry_after_s))).encode()))
        if not self.retry:
            found.append((b"x-should-retry", b"false"))
        return found


class Refused(Exception):
    """A request that the gateway itself answers with an error."""

    def __init__(self, error: HttpError) -> None:
        super().__init__(error.message)
        self.error = error


_ANSWERS: Sequence[tuple[type[sage.SageError], int, str]] = (
    (sage.InvalidRequestError, 400, INVALID),
    (sage.AuthenticationError, 401, "authentication_error"),
    (sage.NotFoundError, 404, "not_found_error"),
    (sage.RequestConflictError, 409, "conflict_error"),
    (sage.InvalidStateError, 409, "conflict_error"),
    (sage.NotSupportedError, 501, "not_implemented_error"),
    (sage.QueueFullError, 429, "rate_limit_error"),
    (sage.TenantLimitError, 429, "rate_limit_error"),
    (sage.OverloadedError, 429, "rate_limit_error"),
    (sage.LimitReachedError, 429, "rate_limit_error"),
    (sage.TryAgainError, 503, NOT_AVAILABLE),
    (sage.DeadlineExceededError, 408, "timeout_error"),
    (sage.WaitTimeoutError, 408, "timeout_error"),
    (sage.RequestCancelledError, 499, "cancelled_error"),
    (sage.SageError, 500, "server_error"),
)
"""The first class of an error's that is found here decides.  docs/openai.md has the same table."""

_NOT_RETRIED = frozenset({408, 409, 499})
"""Statuses that OpenAI's clients retry by themselves, and where a retry would do harm or no good."""

DEFAULT_RETRY_AFTER_S = 1.0
"""Seconds to wait where the scheduler does not say."""


def http_error(error: sage.SageError) -> HttpError:
    """Return the answer to an error."""
    status, kind = next((status, kind) for of, status, kind in _ANSWERS if isinstance(error, of))
    if status == 401 and error.status == "PERMISSION_DENIED":
        status, kind = 403, "permission_error"
    return HttpError(
        status=status,
        kind=kind,
        message=error.message,
        code=error.reason or None,
        param=_param(error),
        retry_after_s=_retry_after_s(error),
        retry=status not in _NOT_RETRIED,
    )


def in_form_of(path: str, body: bytes) -> bytes:
    """Return the body of an error of vLLM's server in the form of the API at ``path``: Anthropic's has its own."""
    if not path.startswith(MESSAGES):
        return body
    try:
        found = json.loads(body)
    except ValueError:
        return body
    error = found.get("error") if isinstance(found, dict) else None
    if not isinstance(error, dict) or "type" in found:
        return body
    return as_json({"type": "error", "error": {"type": INVALID, "message": error.get("message", "")}})


def invalid(message: str, param: str | None = None) -> HttpError:
    """Return the answer to a request that the gateway itself refuses."""
    return HttpError(status=400, kind=INVALID, message=message, param=param, code="INVALID_REQUEST")


def unauthenticated(message: str) -> HttpError:
    """Return the answer to a caller whose key cannot be one."""
    return HttpError(status=401, kind="authentication_error", message=message, code="UNAUTHENTICATED")


def _retry_after_s(error: sage.SageError) -> float | None:
    if not isinstance(error, sage.TryAgainError):
        return None
    return DEFAULT_RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s


def _param(error: sage.SageError) -> str | None:
    violations: Sequence[Any] = getattr(error, "violations", ())
    return openai_field(violations[0].field) if violations else None


def openai_field(field: str) -> str:
    """Return the name of a field of the contract as a caller of the HTTP API gave it."""
    plain = field.partition("[")[0]
    for ours, theirs in _FIELDS.items():
        if plain == ours or plain.startswith(f"{ours}."):
            return theirs
    if plain.startswith(_SAMPLING):
        return plain.removeprefix(_SAMPLING)
    if plain in _OPTIONS:
        return f"sage.{plain.removeprefix('spec.')}"
    return field
