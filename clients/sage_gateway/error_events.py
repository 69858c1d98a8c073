"""Errors in a stream that has begun, in the form of each API."""

from __future__ import annotations

from sage_gateway.error_answers import MESSAGES, HttpError, as_json

RESPONSES = "/v1/responses"

_PREAMBLE = (b"event: response.created\n", b"event: response.in_progress\n")
_OPENAI = b'data: {"error"'
_NAMED = b"event: error\n"


def is_preamble(path: str, body: bytes) -> bool:
    """Return whether ``body`` is an event that a stream of Responses begins with before anything is submitted."""
    return path == RESPONSES and body.startswith(_PREAMBLE)


def is_error_event(path: str, body: bytes) -> bool:
    """Return whether ``body`` is the event by which vLLM's server tells of an error."""
    return body.startswith(_NAMED if path in (RESPONSES, MESSAGES) else _OPENAI)


def error_event(path: str, error: HttpError) -> bytes:
    """Return the event that tells of an error in a stream of the API at ``path``."""
    if path == RESPONSES:
        fields = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return b"event: error\ndata: " + as_json({**fields, "sequence_number": 0}) + b"\n\n"
    if path == MESSAGES:
        return b"event: error\ndata: " + error.body(path) + b"\n\n"
    return b"data: " + error.body(path) + b"\n\n"
