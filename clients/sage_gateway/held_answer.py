"""Holds an answer's beginning back until its first bytes, so that a refusal still gets a status of its own."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from sage_gateway.asgi import Headers, Message, Send, answer_error
from sage_gateway.error_answers import http_error
from sage_gateway.http_call import HttpCall

_EVENT_ERROR = b'data: {"error"'


class HeldAnswer:
    """Sends what the model's application answers, and in place of an error of ours that error.

    A stream begins with status 200 before its request is submitted.  Its beginning is sent with its first bytes here:
    by then the request was placed and put something out, or it was refused.
    """

    def __init__(self, send: Send, call: HttpCall) -> None:
        self._send = send
        self._call = call
        self._start: MutableMapping[str, Any] | None = None
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        """Take a message of the application."""
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            await self._body(message)
        else:
            await self._send(message)

    async def _body(self, message: Message) -> None:
        if self._start is not None:
            if self._call.error is not None:
                self._replaced = True
                await answer_error(self._send, http_error(self._call.error), self._headers())
                return
            start, self._start = self._start, None
            await self._send({**start, "headers": [*start.get("headers", ()), *self._headers()]})
        elif self._call.error is not None and message.get("body", b"").startswith(_EVENT_ERROR):
            message = {**message, "body": b"data: " + http_error(self._call.error).body() + b"\n\n"}
        await self._send(message)

    def _headers(self) -> Headers:
        """Return the headers with what is known of the request."""
        call = self._call
        found: Headers = []
        if call.request_ids:
            found.append((b"x-request-id", _header(call.request_ids[0])))
        if call.accepted is not None and call.accepted.expected_wait_s is not None:
            found.append((b"x-sage-expected-wait", f"{call.accepted.expected_wait_s:.3f}".encode()))
        if call.scheduled is not None:
            decision = call.scheduled.decision
            found.append((b"x-sage-instance", _header(decision.instance_id)))
            found.append((b"x-sage-policy", _header(decision.policy)))
        return found


def _header(value: str) -> bytes:
    """Return a text as a header's value; what no header can hold becomes a question mark."""
    return "".join(each if each.isprintable() else "?" for each in value).encode("latin-1", "replace")
