"""/v1/files and /v1/batches of the gateway, before a scheduler that answers as told.  There is no model and no vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from sage.controlplane.v1 import batch_pb2, common_pb2
from sage_client import AsyncClient, Reconnect
from sage_gateway.asgi import Message
from sage_gateway.batches import file_routes, transfers
from sage_gateway.batches.batch_routes import ROUTE as BATCHES
from sage_gateway.batches.batch_routes import BatchRoutes
from sage_gateway.batches.file_routes import ROUTE as FILES
from sage_gateway.batches.file_routes import FileRoutes
from sage_gateway.caller_clients import CallerClients
from sage_gateway.front_door import FrontDoor
from sage_gateway.model_catalogue import ModelCatalogue
from sage_wire.errors import ErrorReason
from tests.integration.clients.fake_batches import CREATED_S
from tests.integration.clients.fake_scheduler import FakeScheduler
from tests.unit.gateway.fleet_of_models import ListedModels
from tests.unit.gateway.http_client import Answered, call
from tests.unit.gateway.test_upload_form import KIND, file, form, part

LINES = b'{"custom_id": "a", "body": {}}\n' * 100_000
QUICK = Reconnect(attempts=1, first_delay_s=0.01, max_delay_s=0.01)
Ask = Callable[..., Awaitable[Answered]]


async def check_caller(token: str) -> None:
    raise AssertionError("the scheduler judges the call itself")


@pytest.fixture
async def door(scheduler: FakeScheduler) -> AsyncIterator[FrontDoor]:
    clients = CallerClients(lambda token: AsyncClient(scheduler.address, token=token, reconnect=QUICK))
    fleet = ListedModels()
    catalogue = ModelCatalogue(fleet, fleet.build, fleet.embedding)
    routes: dict[str, Any] = {FILES: FileRoutes(clients), BATCHES: BatchRoutes(clients)}
    yield FrontDoor(catalogue, lambda: (b"", b""), "0.32.0", check_caller, routes)
    await clients.close()


@pytest.fixture
def ask(door: FrontDoor) -> Ask:
    async def ask(
        method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None, pieces: int = 1
    ) -> Answered:
        given = {"authorization": "Bearer key", **(headers or {})}
        return await call(door, method, path, body, given, pieces=pieces)

    return ask


async def upload(ask: Ask, *parts: bytes, pieces: int = 1, headers: Mapping[str, str] | None = None) -> Answered:
    return await ask("POST", FILES, form(*parts), {"content-type": KIND, **(headers or {})}, pieces)


async def test_a_file_is_uploaded_as_the_caller(scheduler: FakeScheduler, ask: Ask) -> None:
    keep = (part("expires_after[anchor]", b"created_at"), part("expires_after[seconds]", b"7200"))
    answered = await upload(ask, part("purpose", b"batch"), *keep, file(LINES), pieces=500)
    assert answered.status == 200, answered.body
    assert answered.json == {
        "id": answered.json["id"],
        "object": "file",
        "bytes": len(LINES),
        "created_at": CREATED_S,
        "expires_at": CREATED_S + 7_200,
        "filename": "in.jsonl",
        "purpose": "batch",
        "status": "processed",
    }
    assert scheduler.contents[answered.json["id"]] == LINES
    assert set(scheduler.tokens) == {"Bearer key"}


async def test_the_purpose_may_come_after_the_file(scheduler: FakeScheduler, ask: Ask) -> None:
    assert (await upload(ask, file(LINES), part("purpose", b"batch"))).status == 200


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([file(LINES)], "purpose"),
        ([part("purpose", b"vision"), file()], "purpose"),
        ([file(LINES), part("purpose", b"vision")], "purpose"),
        ([part("purpose", b"batch")], "file"),
        ([part("purpose", b"batch"), part("expires_after[seconds]", b"soon"), file()], "expires_after"),
        ([part("purpose", b"batch"), part("expires_after[anchor]", b"now"), file()], "expires_after"),
        ([part("purpose", b"batch"), file(LINES), part("expires_after[seconds]", b"9000")], "expires_after"),
    ],
)
async def test_a_wrong_upload_is_refused_by_name_and_nothing_is_kept(
    scheduler: FakeScheduler, ask: Ask, parts: list[bytes], param: str
) -> None:
    answered = await upload(ask, *parts, pieces=50)
    assert (answered.status, answered.error["param"]) == (400, param)
    assert not scheduler.files


async def test_an_upload_that_is_no_form_is_refused(ask: Ask) -> None:
    answered = await ask("POST", FILES, {"purpose": "batch"})
    assert (answered.status, answered.error["type"]) == (400, "invalid_request_error")


async def test_an_upload_that_is_too_large_is_refused(
    scheduler: FakeScheduler, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_routes, "UPLOAD_LIMIT_BYTES", 100_000)
    answered = await upload(ask, part("purpose", b"batch"), file(LINES), pieces=100)
    assert answered.status == 413
    assert not scheduler.files


async def test_more_transfers_than_there_are_places_are_refused(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "LIMIT", 0)
    for answered in (await upload(ask, part("purpose", b"batch"), file()), await ask("GET", f"{FILES}/f/content")):
        assert (answered.status, answered.error["code"]) == (429, "LIMIT_REACHED")


async def test_a_caller_that_has_its_places_is_told_when_to_try_again(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "CALLER_LIMIT", 0)
    answered = await upload(ask, part("purpose", b"batch"), file())
    assert (answered.status, answered.error["code"]) == (429, "TENANT_LIMIT")
    assert "retry-after" in answered.headers


async def test_what_the_scheduler_refuses_is_said(scheduler: FakeScheduler, ask: Ask) -> None:
    scheduler.refuses_uploads = ErrorReason.TENANT_LIMIT
    answered = await upload(ask, part("purpose", b"batch"), file())
    assert (answered.status, answered.error["code"]) == (429, "TENANT_LIMIT")
    assert "retry-after" in answered.headers


async def test_an_upload_that_breaks_at_the_scheduler_may_be_tried_again(scheduler: FakeScheduler, ask: Ask) -> None:
    scheduler.broken_uploads = 1
    answered = await upload(ask, part("purpose", b"batch"), file(LINES), pieces=100)
    assert answered.status == 503
    assert "x-should-retry" not in answered.headers
    assert not scheduler.files


async def test_a_client_that_leaves_during_an_upload_leaves_nothing(scheduler: FakeScheduler, door: FrontDoor) -> None:
    body = form(part("purpose", b"batch"), file(LINES))[:1_500_000]
    waiting: list[Message] = [
        {"type": "http.request", "body": body, "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    headers = [(b"content-type", KIND.encode())]
    await door({"type": "http", "method": "POST", "path": FILES, "headers": headers}, receive, send)
    assert not scheduler.files


async def test_a_file_is_got_read_and_deleted(scheduler: FakeScheduler, ask: Ask) -> None:
    scheduler.add_file("f", LINES)
    scheduler.piece_bytes = 100_000
    scheduler.breaks_downloads_at = [1_000_000]
    assert (await ask("GET", f"{FILES}/f")).json["purpose"] == "batch_output"
    content = await ask("GET", f"{FILES}/f/content")
    assert (content.body, content.headers["content-length"]) == (LINES, str(len(LINES)))
    assert (await ask("DELETE", f"{FILES}/f")).json == {"id": "f", "object": "file", "deleted": True}
    for method, path in (("GET", "/f"), ("GET", "/f/content"), ("DELETE", "/f")):
        answered = await ask(method, f"{FILES}{path}")
        assert (answered.status, answered.error["code"]) == (404, "FILE_NOT_FOUND")


async def test_an_empty_file_has_an_empty_content(scheduler: FakeScheduler, ask: Ask) -> None:
    scheduler.add_file("f", b"")
    assert (await ask("GET", f"{FILES}/f/content")).body == b""


async def test_a_file_that_still_grows_is_sent_as_long_as_it_was(scheduler: FakeScheduler, ask: Ask) -> None:
    scheduler.add_file("f", LINES)
    scheduler.contents["f"] += b"more"
    assert (await ask("GET", f"{FILES}/f/content")).body == LINES


async def test_a_content_that_breaks_off_is_shorter_than_it_says(scheduler: FakeScheduler, ask: Ask) -> None:
    scheduler.add_file("f", LINES)
    scheduler.breaks_downloads_at = [100_000, 0, 0, 0]
    content = await ask("GET", f"{FILES}/f/content")
    assert content.status == 200
    assert 0 < len(content.body) < int(content.headers["content-length"])


async def test_a_client_that_leaves_during_a_download_ends_it(scheduler: FakeScheduler, door: FrontDoor) -> None:
    scheduler.add_file("f", LINES)
    sent = 0

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))
        await asyncio.sleep(0)

    await door({"type": "http", "method": "GET", "path": f"{FILES}/f/content", "headers": []}, receive, send)
    assert sent < len(LINES)


async def test_a_client_that_does_not_read_its_download_gives_back_its_place(
    scheduler: FakeScheduler, door: FrontDoor, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_routes, "READ_TIMEOUT_S", 0.01)
    monkeypatch.setattr(transfers, "LIMIT", 1)
    scheduler.add_file("f", LINES)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message.get("body"):
            await asyncio.Event().wait()

    await door({"type": "http", "method": "GET", "path": f"{FILES}/f/content", "headers": []}, receive, send)
    monkeypatch.setattr(file_routes, "READ_TIMEOUT_S", 60.0)
    assert (await ask("GET", f"{FILES}/f/content")).body == LINES


async def test_lists_come_in_pages(scheduler: FakeScheduler, ask: Ask) -> None:
    for number in range(5):
        scheduler.add_file(f"f{number}", b"x", batch_pb2.FILE_PURPOSE_BATCH)
        await ask("POST", BATCHES, {"input_file_id": "f0", "sage": {"request_id": f"b{number}"}})
    scheduler.add_file("out", b"x")
    for route, name in ((FILES, "f"), (BATCHES, "b")):
        query = "&purpose=batch" if route == FILES else ""
        first = (await ask("GET", f"{route}?limit=2{query}")).json
        assert ([each["id"] for each in first["data"]], first["has_more"]) == ([f"{name}4", f"{name}3"], True)
        last = (await ask("GET", f"{route}?after={first['last_id']}{query}")).json
        assert [each["id"] for each in last["data"]] == [f"{name}2", f"{name}1", f"{name}0"]
        assert (last["first_id"], last["has_more"]) == (f"{name}2", False)
        assert (await ask("GET", f"{route}?after={name}0{query}")).json["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("after=nobody", "after"),
        ("order=asc", "order"),
        ("colour=red", "colour"),
    ],
)
async def test_a_wrong_part_of_a_list_is_refused_by_name(ask: Ask, query: str, param: str) -> None:
    for route in (FILES, BATCHES):
        answered = await ask("GET", f"{route}?{query}")
        assert (answered.status, answered.error["param"]) == (400, param)
    assert (await ask("GET", f"{FILES}?purpose=other")).error["param"] == "purpose"


async def test_a_batch_is_created_got_and_cancelled(scheduler: FakeScheduler, ask: Ask) -> None:
    scheduler.add_file("in", b'{"custom_id": "a"}\n')
    made = await ask(
        "POST",
        BATCHES,
        {
            "input_file_id": "in",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"for": "me"},
            "output_expires_after": {"anchor": "created_at", "seconds": 3_600},
            "sage": {"priority": "low", "tenant": "acme", "request_id": "mine"},
        },
    )
    assert made.status == 200, made.body
    [request] = scheduler.submitted
    assert (request.batch_id, request.tenant, request.priority) == ("mine", "acme", common_pb2.PRIORITY_LOW)
    assert (request.deadline.seconds, request.keep_result.seconds) == (86_400, 3_600)
    assert made.json["completion_window"] == "24h"
    assert (made.json["object"], made.json["status"], made.json["output_file_id"]) == ("batch", "validating", None)
    assert made.json["metadata"] == {"for": "me"}
    assert made.json["sage"]["priority"] == "low"
    scheduler.ends_after = 1
    got = (await ask("GET", f"{BATCHES}/mine")).json
    assert (got["status"], got["completed_at"], got["output_file_id"]) == ("completed", CREATED_S + 60, "mine-output")
    assert got["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert (await ask("POST", f"{BATCHES}/mine/cancel")).json["status"] == "completed"


async def test_ids_may_hold_slashes(scheduler: FakeScheduler, ask: Ask) -> None:
    scheduler.add_file("in", b'{"custom_id": "a"}\n')
    made = await ask("POST", BATCHES, {"input_file_id": "in", "sage": {"request_id": "team/night"}})
    assert made.status == 200, made.body
    assert (await ask("GET", f"{BATCHES}/team/night")).json["id"] == "team/night"
    assert (await ask("POST", f"{BATCHES}/team/night/cancel")).json["status"] == "cancelled"
    scheduler.add_file("team/night-output", LINES)
    assert (await ask("GET", f"{FILES}/team/night-output")).json["id"] == "team/night-output"
    assert (await ask("GET", f"{FILES}/team/night-output/content")).body == LINES


async def test_a_cancelled_batch_says_when(scheduler: FakeScheduler, ask: Ask) -> None:
    scheduler.add_file("in", b"")
    await ask("POST", BATCHES, {"input_file_id": "in", "sage": {"request_id": "b"}})
    cancelled = (await ask("POST", f"{BATCHES}/b/cancel")).json
    assert (cancelled["status"], cancelled["cancelling_at"]) == ("cancelled", CREATED_S + 30)
    assert (cancelled["cancelled_at"], cancelled["completed_at"]) == (CREATED_S + 31, None)


async def test_a_batch_that_failed_has_its_errors(scheduler: FakeScheduler, ask: Ask) -> None:
    scheduler.add_file("in", b"")
    await ask("POST", BATCHES, {"input_file_id": "in", "sage": {"request_id": "b"}})
    batch = scheduler.batches["b"]
    batch.state = batch_pb2.BATCH_STATE_FAILED
    batch.ended_at.FromSeconds(CREATED_S + 5)
    batch.errors.add(code="empty_file", message="there is no line")
    found = (await ask("GET", f"{BATCHES}/b")).json
    assert (found["status"], found["failed_at"]) == ("failed", CREATED_S + 5)
    fault = {"code": "empty_file", "message": "there is no line", "param": None, "line": None}
    assert found["errors"] == {"object": "list", "data": [fault]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"no json", None),
        ({}, "input_file_id"),
        ({"input_file_id": 5}, "input_file_id"),
        ({"input_file_id": "in", "endpoint": 5}, "endpoint"),
        ({"input_file_id": "in", "completion_window": "soon"}, "completion_window"),
        ({"input_file_id": "in", "metadata": {"a": 1}}, "metadata"),
        ({"input_file_id": "in", "output_expires_after": {"seconds": 0}}, "output_expires_after"),
        ({"input_file_id": "in", "temperature": 1}, "temperature"),
        ({"input_file_id": "in", "sage": {"priority": "urgent"}}, "sage.priority"),
        ({"input_file_id": "in", "sage": {"deadline": 5}}, "sage.deadline"),
    ],
)
async def test_a_wrong_batch_is_refused_by_name(
    scheduler: FakeScheduler, ask: Ask, body: object, param: str | None
) -> None:
    scheduler.add_file("in", b"")
    answered = await ask("POST", BATCHES, body)
    assert (answered.status, answered.error["param"]) == (400, param), answered.body
    assert not scheduler.batches


async def test_options_in_headers_count_too(scheduler: FakeScheduler, ask: Ask) -> None:
    scheduler.add_file("in", b"")
    made = await ask("POST", BATCHES, {"input_file_id": "in"}, {"x-sage-priority": "high", "x-sage-tenant": "acme"})
    assert made.status == 200, made.body
    [request] = scheduler.submitted
    assert (request.priority, request.tenant) == (common_pb2.PRIORITY_HIGH, "acme")
    for route in (FILES, BATCHES):
        refused = await ask("GET", f"{route}/x", headers={"x-sage-ttft-target": "1"})
        assert (refused.status, refused.error["param"]) == (400, "sage.ttft_target")


async def test_what_is_not_there_is_said(ask: Ask) -> None:
    unknown = await ask("POST", BATCHES, {"input_file_id": "none"})
    assert (unknown.status, unknown.error["code"]) == (404, "FILE_NOT_FOUND")
    for method, path in (("GET", "/none"), ("POST", "/none/cancel")):
        answered = await ask(method, f"{BATCHES}{path}")
        assert (answered.status, answered.error["code"]) == (404, "BATCH_NOT_FOUND")
    for method, path in (("GET", f"{BATCHES}/b/other"), ("GET", f"{FILES}/f/other"), ("GET", f"{FILES}x")):
        assert (await ask(method, path)).status == 404
    for method, path in (("PUT", BATCHES), ("DELETE", FILES), ("POST", f"{FILES}/f"), ("GET", f"{BATCHES}/b/cancel")):
        assert (await ask(method, path)).status == 405


async def test_a_key_that_is_none_is_refused(ask: Ask) -> None:
    for route in (FILES, BATCHES):
        assert (await ask("GET", route, headers={"authorization": f"Bearer {'x' * 9_000}"})).status == 401
