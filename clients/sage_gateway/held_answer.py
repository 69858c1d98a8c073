"""Holds an answer's beginning back until its first output, so that a refusal still gets a status of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, MutableMapping
from typing import Any

from sage_gateway.asgi import Headers, Message, Send, answer_error
from sage_gateway.error_answers import HttpError, http_error, in_form_of
from sage_gateway.error_events import error_event, is_error_event, is_preamble
from sage_gateway.http_call import HttpCall
from sage_gateway.request_report import report_event, report_headers

log = logging.getLogger(__name__)

INTERNAL = HttpError(status=500, kind="server_error", message="an internal error of the gateway", code="INTERNAL")


_EVENTS = b"text/event-stream"
_DONE = b"data: [DONE]\n\n"
_NO_ROUTE = b'{"detail":"Not Found"}'
"""What vLLM's server says where it has built no route, because the model cannot do it."""


class HeldAnswer:
    """Sends what the model's application answers, and in place of an error of ours that error.

    A stream begins with status 200 before its request is submitted.  Its beginning is sent with its first output here:
    by then the request was placed and put something out, or it was refused.
    """

    def __init__(self, send: Send, call: HttpCall, path: str = "") -> None:
        self._send = send
        self._call = call
        self._path = path
        self._start: MutableMapping[str, Any] | None = None
        self._preamble: list[Message] = []  # events that a stream begins with before its request is submitted
        self._begun = False
        self._reports = False  # whether a report is to come with the stream's end
        self._complete = False

    async def __call__(self, message: Message) -> None:
        """Take a message of the application."""
        if self._complete:
            return
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            await self._body(message)
        else:
            await self._send(message)

    async def fail(self, error: Exception) -> None:
        """End the answer because the application raised: a stream that has begun, with an event that says why."""
        known = self._call.error
        if known is None:
            log.error("a request to %s failed", self._path, exc_info=error)
        if self._complete:
            return
        answered = http_error(known) if known is not None else INTERNAL
        if not self._begun:
            await self._refuse(answered)
            return
        self._complete = True
        event = error_event(self._path, answered)
        await self._send({"type": "http.response.body", "body": event, "more_body": False})

    async def _body(self, message: Message) -> None:
        error, body = self._call.error, message.get("body", b"")
        if not self._begun:
            if error is not None:
                await self._refuse(http_error(error))
                return
            if body == _NO_ROUTE and (self._start or {}).get("status") == 404:
                await self._refuse(
                    HttpError(status=404, kind="not_found_error", message=f"the model has no {self._path}")
                )
                return
            if (self._start or {}).get("status", 200) >= 400:
                message = self._of_vllm(message)
            if is_preamble(self._path, body):
                self._preamble.append(message)
                return
            await self._begin()
        elif error is not None and is_error_event(self._path, body):
            message = {**message, "body": error_event(self._path, http_error(error))}
        self._complete = not message.get("more_body", False)
        if self._reports and error is None and (body == _DONE or self._complete):
            self._reports = False
            message = {**message, "body": report_event(self._path, self._call) + body}
        await self._send(message)

    def _of_vllm(self, message: Message) -> Message:
        """Return a refusal of vLLM's server in the form of the API, and let its length fit."""
        body = in_form_of(self._path, message.get("body", b""))
        if body != message.get("body") and not message.get("more_body") and self._start is not None:
            kept = [each for each in self._start.get("headers", ()) if each[0].lower() != b"content-length"]
            self._start = {**self._start, "headers": [*kept, (b"content-length", str(len(body)).encode())]}
            return {**message, "body": body}
        return message

    async def _begin(self) -> None:
        """Send what was held back."""
        self._begun = True
        start, held = self._start or {}, self._preamble
        self._reports = self._call.options.report and (b"content-type", _EVENTS) in _kinds(start.get("headers", ()))
        self._start, self._preamble = None, []
        await self._send({**start, "headers": [*start.get("headers", ()), *self._headers()]})
        for each in held:
            await self._send(each)

    async def _refuse(self, error: HttpError) -> None:
        self._complete = True
        self._preamble.clear()
        await answer_error(self._send, error, self._headers(), path=self._path)

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
        if call.options.report:
            found += report_headers(call)
        return found


def _kinds(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return headers without the parameters of their values."""
    return [(name.lower(), value.partition(b";")[0].strip()) for name, value in headers]


def _header(value: str) -> bytes:
    """Return a text as a header's value; what no header can hold becomes a question mark."""
    return "".join(each if each.isprintable() else "?" for each in value).encode("latin-1", "replace")
