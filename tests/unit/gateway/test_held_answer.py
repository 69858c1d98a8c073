"""An answer begins with its first bytes, so that a refusal has a status of its own."""

from __future__ import annotations

import json

import sage_client as sage
from sage_client import Accepted
from sage_gateway.asgi import Message
from sage_gateway.held_answer import HeldAnswer
from sage_gateway.http_call import HttpCall
from sage_gateway.request_options import RequestOptions

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
LAST: Message = {"type": "http.response.body", "body": b"", "more_body": False}


def chunk(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}


class Client:
    def __init__(self) -> None:
        self.sent: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


async def test_nothing_is_sent_before_the_first_bytes() -> None:
    client, call = Client(), HttpCall()
    held = HeldAnswer(client, call)
    await held(START)
    assert client.sent == []
    await held(chunk(b"data: 1"))
    assert [each["type"] for each in client.sent] == ["http.response.start", "http.response.body"]


async def test_the_answer_says_where_the_request_is() -> None:
    client, call = Client(), HttpCall(options=RequestOptions(request_id="mine"))
    assert [call.next_request_id("theirs") for _ in range(2)] == ["mine", "mine-1"]
    call.accepted = Accepted(
        request_id="mine", model="m", prompt_tokens=1, attached=False, expected_wait_s=0.25, warnings=()
    )
    held = HeldAnswer(client, call)
    await held(START)
    await held(chunk(b"x"))
    assert client.headers[b"x-request-id"] == b"mine"
    assert client.headers[b"x-sage-expected-wait"] == b"0.250"


async def test_a_refusal_before_the_first_bytes_is_the_whole_answer() -> None:
    client, call = Client(), HttpCall()
    held = HeldAnswer(client, call)
    await held(START)
    call.error = sage.QueueFullError("full", reason="QUEUE_FULL")
    for each in (chunk(b'data: {"error": {}}\n\n'), chunk(b"data: [DONE]\n\n"), LAST):
        await held(each)
    start, body = client.sent
    assert (start["status"], client.headers[b"retry-after"]) == (429, b"1")
    assert json.loads(body["body"])["error"]["code"] == "QUEUE_FULL"


async def test_a_failure_in_a_stream_is_its_last_event() -> None:
    client, call = Client(), HttpCall()
    held = HeldAnswer(client, call)
    await held(START)
    await held(chunk(b"data: 1\n\n"))
    call.error = sage.DeadlineExceededError("late", reason="DEADLINE_EXCEEDED")
    await held(chunk(b'data: {"error": {"code": 500}}\n\n'))
    await held(chunk(b"data: [DONE]\n\n"))
    *_, event, done = client.sent
    assert json.loads(event["body"].removeprefix(b"data: "))["error"]["code"] == "DEADLINE_EXCEEDED"
    assert done["body"] == b"data: [DONE]\n\n"


async def test_ids_that_no_header_can_hold_are_shown_as_far_as_they_can() -> None:
    client, call = Client(), HttpCall(options=RequestOptions(request_id="a\nb☃"))
    call.next_request_id("")
    held = HeldAnswer(client, call)
    await held(START)
    await held(chunk(b"x"))
    assert client.headers[b"x-request-id"] == b"a?b?"
