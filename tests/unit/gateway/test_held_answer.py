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


CREATED = chunk(b"event: response.created\ndata: {}\n\n")
LATE = sage.DeadlineExceededError("late", reason="DEADLINE_EXCEEDED")


async def test_a_refused_stream_of_responses_has_its_status() -> None:
    """It begins with an event before its request is submitted, and vLLM's server raises at the error."""
    client, call = Client(), HttpCall()
    held = HeldAnswer(client, call, "/v1/responses")
    for each in (START, CREATED):
        await held(each)
    assert client.sent == []
    call.error = LATE
    await held.fail(ValueError("no such event"))
    start, body = client.sent
    assert (start["status"], json.loads(body["body"])["error"]["code"]) == (408, "DEADLINE_EXCEEDED")


async def test_a_stream_of_responses_ends_with_its_error() -> None:
    client, call = Client(), HttpCall()
    held = HeldAnswer(client, call, "/v1/responses")
    for each in (START, CREATED, chunk(b"event: response.output_text.delta\ndata: {}\n\n")):
        await held(each)
    call.error = LATE
    await held.fail(ValueError("no such event"))
    assert [each.get("body", b"")[:22] for each in client.sent[1:3]] == [
        b"event: response.create",
        b"event: response.output",
    ]
    name, data = client.sent[-1]["body"].decode().splitlines()[:2]
    assert (name, json.loads(data.removeprefix("data: "))["code"]) == ("event: error", "DEADLINE_EXCEEDED")
    assert client.sent[-1]["more_body"] is False


async def test_a_failure_in_a_stream_of_messages_is_anthropics_event() -> None:
    client, call = Client(), HttpCall()
    held = HeldAnswer(client, call, "/v1/messages")
    for each in (START, chunk(b"event: message_start\ndata: {}\n\n")):
        await held(each)
    call.error = LATE
    await held(chunk(b'event: error\ndata: {"error": {"message": "2 validation errors"}}\n\n'))
    data = json.loads(client.sent[-1]["body"].decode().splitlines()[1].removeprefix("data: "))
    assert (data["type"], data["error"]["message"]) == ("error", "late")


async def test_an_application_that_raises_is_an_internal_error() -> None:
    client = Client()
    await HeldAnswer(client, HttpCall(), "/v1/completions").fail(ValueError("a secret"))
    start, body = client.sent
    assert (start["status"], json.loads(body["body"])["error"]["type"]) == (500, "server_error")
    assert b"secret" not in body["body"]


ENDED = sage.Finished(
    finish_reason=sage.FinishReason.STOP,
    stop_string=None,
    stop_token_id=None,
    usage=sage.Usage(prompt_tokens=1, completion_tokens=2, cached_prompt_tokens=0),
    timings=sage.Timings(
        queue_s=0.001, time_to_first_token_s=0.02, prefill_s=0.019, transfer_s=None, decode_s=0.03, total_s=0.05
    ),
    attempts=1,
    cost=0.25,
    slo=(),
)
REPORTED = RequestOptions(report=True)


async def test_an_answer_says_what_it_took_if_it_was_asked() -> None:
    client, call = Client(), HttpCall(options=REPORTED)
    held = HeldAnswer(client, call, "/v1/completions")
    await held({**START, "headers": [(b"content-type", b"application/json")]})
    call.note_end(ENDED)
    call.note_end(ENDED)
    await held({**LAST, "body": b"{}"})
    assert (client.headers[b"x-sage-cost"], client.headers[b"x-sage-attempts"]) == (b"0.5", b"2")
    assert client.headers[b"server-timing"] == (
        b"queue;dur=1.000, ttft;dur=20.000, prefill;dur=19.000, decode;dur=30.000, total;dur=50.000"
    )
    assert client.sent[-1]["body"] == b"{}"


async def test_a_stream_says_what_it_took_before_it_is_done() -> None:
    client, call = Client(), HttpCall(options=REPORTED, request_ids=["r"])
    held = HeldAnswer(client, call, "/v1/chat/completions")
    await held(START)
    await held(chunk(b"data: 1\n\n"))
    call.note_end(ENDED)
    for each in (chunk(b"data: [DONE]\n\n"), LAST):
        await held(each)
    assert b"x-sage-cost" not in client.headers
    report, done, _ = client.sent[-2]["body"].split(b"\n\n")
    found = json.loads(report.removeprefix(b"data: "))
    assert (found["choices"], found["sage"]["cost"], found["sage"]["request_ids"]) == ([], 0.25, ["r"])
    assert found["sage"]["requests"][0]["timings"]["total_s"] == 0.05
    assert (done, client.sent[-1]["body"]) == (b"data: [DONE]", b"")


async def test_a_stream_without_done_says_it_at_the_end() -> None:
    client, call = Client(), HttpCall(options=REPORTED)
    held = HeldAnswer(client, call, "/v1/messages")
    await held(START)
    await held(chunk(b"event: message_start\ndata: {}\n\n"))
    call.note_end(ENDED)
    await held(LAST)
    assert client.sent[-1]["body"].startswith(b'event: sage.report\ndata: {"type": "sage.report"')
    assert client.sent[-1]["more_body"] is False


async def test_a_stream_that_fails_reports_nothing_but_its_error() -> None:
    client, call = Client(), HttpCall(options=REPORTED)
    held = HeldAnswer(client, call, "/v1/completions")
    await held(START)
    await held(chunk(b"data: 1\n\n"))
    call.error = LATE
    for each in (chunk(b'data: {"error": {}}\n\n'), chunk(b"data: [DONE]\n\n"), LAST):
        await held(each)
    assert not any(b'"sage"' in each.get("body", b"") for each in client.sent)


async def test_what_vllms_server_refuses_of_messages_has_anthropics_form() -> None:
    client = Client()
    held = HeldAnswer(client, HttpCall(), "/v1/messages")
    body = b'{"error": {"message": "no such type", "type": "Bad Request", "code": 400}}'
    await held({**START, "status": 400, "headers": [(b"content-length", b"%d" % len(body))]})
    await held({**LAST, "body": body})
    answer = client.sent[-1]["body"]
    assert json.loads(answer) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "no such type"},
    }
    assert client.headers[b"content-length"] == b"%d" % len(answer)


async def test_a_route_that_vllms_server_did_not_build_is_told_in_openais_form() -> None:
    client = Client()
    held = HeldAnswer(client, HttpCall(), "/v1/score")
    await held({**START, "status": 404, "headers": []})
    await held({**LAST, "body": b'{"detail":"Not Found"}'})
    error = json.loads(client.sent[-1]["body"])["error"]
    assert (client.sent[0]["status"], error["message"]) == (404, "the model has no /v1/score")
