"""Files and batches through the SDK: what is sent, what comes back, and what is sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sage.controlplane.v1 import batch_pb2, common_pb2
from sage_client import (
    AsyncClient,
    Batch,
    BatchAnswer,
    BatchFailedError,
    BatchNotFoundError,
    BatchState,
    Client,
    FilePurpose,
    InvalidRequestError,
    InvalidStateError,
    Priority,
    ProtocolError,
    Reconnect,
    RequestConflictError,
    StoredFileNotFoundError,
    TenantLimitError,
    UnavailableError,
    WaitTimeoutError,
)
from sage_client._file_source import Content
from sage_wire.batches import FILE_PIECE_BYTES
from sage_wire.errors import ErrorReason
from tests.integration.clients.fake_batches import answered, failed
from tests.integration.clients.fake_scheduler import FakeScheduler

LINES = b"".join(json.dumps({"custom_id": each, "body": {}}).encode() + b"\n" for each in ("a", "b", "c"))
LARGE = bytes(range(256)) * (10 * 1024)  # 2.5 MiB
QUICK = Reconnect(attempts=3, first_delay_s=0.01, max_delay_s=0.01)


@pytest.fixture
async def client(scheduler: FakeScheduler) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(scheduler.address, tenant="acme", token="secret", reconnect=QUICK) as made:
        yield made


class Repeatable:
    """Yields bytes whenever it is asked to."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._content), 10_000):
            yield self._content[start : start + 10_000]


async def once(content: bytes) -> AsyncIterator[bytes]:
    for each in Repeatable(content):
        yield each


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "repeatable", "iterator", "asynchronous"])
async def test_a_file_is_uploaded_in_pieces(
    scheduler: FakeScheduler, client: AsyncClient, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(LARGE)
    contents: dict[str, Content] = {
        "path": path,
        "text": str(path),
        "bytes": LARGE,
        "repeatable": Repeatable(LARGE),
        "iterator": iter(Repeatable(LARGE)),
        "asynchronous": once(LARGE),
    }
    stored = await client.upload_file(contents[kind], file_id="f", keep="1h")
    assert scheduler.contents["f"] == LARGE
    assert scheduler.largest_piece == FILE_PIECE_BYTES
    assert (stored.file_id, stored.size_bytes, stored.purpose) == ("f", len(LARGE), FilePurpose.BATCH)
    assert stored.name == ("in.jsonl" if kind in ("path", "text") else "")
    assert stored.keep_until is not None
    assert (stored.keep_until - stored.created_at).total_seconds() == 3_600
    assert scheduler.tokens[0] == "Bearer secret"


async def test_a_broken_upload_is_sent_again_by_its_id(scheduler: FakeScheduler, client: AsyncClient) -> None:
    scheduler.broken_uploads = 2
    stored = await client.upload_file(LARGE)
    assert (scheduler.uploads, scheduler.contents) == (3, {stored.file_id: LARGE})


async def test_what_can_be_read_only_once_is_not_sent_in_part(scheduler: FakeScheduler, client: AsyncClient) -> None:
    scheduler.broken_uploads = 1
    with pytest.raises(UnavailableError):
        await client.upload_file(once(LARGE), file_id="f")
    assert "f" not in scheduler.files
    assert (await client.upload_file(once(LARGE), file_id="f")).size_bytes == len(LARGE)


async def test_an_upload_of_other_content_is_a_conflict(client: AsyncClient) -> None:
    await client.upload_file(b"one", file_id="f")
    assert (await client.upload_file(b"one", file_id="f")).file_id == "f"
    with pytest.raises(RequestConflictError):
        await client.upload_file(b"other", file_id="f")


async def test_a_refused_upload_says_why(scheduler: FakeScheduler, client: AsyncClient) -> None:
    scheduler.refuses_uploads = ErrorReason.TENANT_LIMIT
    with pytest.raises(TenantLimitError, match="no room"):
        await client.upload_file(LARGE)


async def test_what_is_no_content_is_refused_before_it_is_sent(
    scheduler: FakeScheduler, client: AsyncClient, tmp_path: Path
) -> None:
    for content, what in ((tmp_path / "none", "cannot read"), (5, "yields none"), (["text"], "not bytes")):
        with pytest.raises(InvalidRequestError, match=what) as refused:
            await client.upload_file(content)  # type: ignore[arg-type]
        assert refused.value.violations[0].field == "content"
    with pytest.raises(InvalidRequestError, match="keep"):
        await client.upload_file(b"", keep="long")
    assert not scheduler.files


async def test_what_the_content_raises_ends_the_upload(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    with pytest.raises(KeyError):
        await client.upload_file(broken())
    assert not scheduler.files


async def test_content_that_does_not_come_is_given_up(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    with pytest.raises(WaitTimeoutError):
        await client.upload_file(silent(), timeout=0.1)
    assert not scheduler.files


async def test_a_download_goes_on_where_it_broke(scheduler: FakeScheduler, client: AsyncClient) -> None:
    scheduler.add_file("f", LARGE)
    scheduler.piece_bytes = 100_000
    scheduler.breaks_downloads_at = [300_000, 0, 100_000]
    assert b"".join([piece async for piece in client.read_file("f")]) == LARGE
    assert b"".join([piece async for piece in client.read_file("f", offset=len(LARGE) - 3)]) == LARGE[-3:]


async def test_a_download_that_breaks_without_end_fails(scheduler: FakeScheduler, client: AsyncClient) -> None:
    scheduler.add_file("f", LARGE)
    scheduler.breaks_downloads_at = [0] * 4
    with pytest.raises(UnavailableError):
        [piece async for piece in client.read_file("f")]


async def test_files_are_listed_got_and_deleted(scheduler: FakeScheduler, client: AsyncClient) -> None:
    for number in range(5):
        scheduler.add_file(f"f{number}", b"x")
    await client.upload_file(b"x", file_id="mine")
    assert [each.file_id async for each in client.list_files(page_size=2)] == ["mine", "f4", "f3", "f2", "f1", "f0"]
    assert [each.file_id async for each in client.list_files(purpose="batch")] == ["mine"]
    assert [each.file_id async for each in client.list_files(after="f2")] == ["f1", "f0"]
    assert (await client.get_file("f3")).purpose is FilePurpose.BATCH_OUTPUT
    await client.delete_file("f3")
    for call in (client.get_file("f3"), client.delete_file("f3")):
        with pytest.raises(StoredFileNotFoundError):
            await call
    with pytest.raises(InvalidRequestError, match="page_token"):
        [each async for each in client.list_files(after="nobody")]
    with pytest.raises(ValueError, match="other"):
        [each async for each in client.list_files(purpose="other")]


async def test_a_file_that_a_batch_reads_is_not_deleted(client: AsyncClient) -> None:
    await client.upload_file(LINES, file_id="f")
    await client.submit_batch("f")
    with pytest.raises(InvalidStateError):
        await client.delete_file("f")


async def test_a_batch_is_submitted_with_all_that_is_asked_for(scheduler: FakeScheduler, client: AsyncClient) -> None:
    await client.upload_file(LINES, file_id="f")
    batch = await client.submit_batch(
        "f",
        endpoint="/v1/completions",
        batch_id="mine",
        deadline="2h",
        priority="low",
        metadata={"for": "me"},
        keep_result=60,
    )
    [request] = scheduler.submitted
    assert (request.batch_id, request.tenant, request.input_file_id) == ("mine", "acme", "f")
    assert (request.deadline.seconds, request.keep_result.seconds) == (7_200, 60)
    assert request.priority == common_pb2.PRIORITY_LOW
    assert (batch.state, batch.priority, batch.metadata) == (BatchState.VALIDATING, Priority.LOW, {"for": "me"})
    assert (batch.endpoint, batch.ended, batch.ended_at, batch.tenant) == ("/v1/completions", False, None, "acme")
    assert batch.expires_at is not None
    assert (batch.expires_at - batch.created_at).total_seconds() == 7_200
    assert batch.to_dict()["state"] == "validating"
    assert json.loads(batch.to_json())["created_at"] == "2023-11-14T22:13:20+00:00"


async def test_what_a_batch_cannot_have_is_named(client: AsyncClient) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        await client.submit_batch("f", deadline="long", priority="urgent", metadata={"a": 1})  # type: ignore[dict-item]
    assert [each.field for each in refused.value.violations] == ["metadata", "priority", "deadline"]


async def test_batches_are_listed_and_cancelled(scheduler: FakeScheduler, client: AsyncClient) -> None:
    await client.upload_file(LINES, file_id="f")
    for number in range(3):
        await client.submit_batch("f", batch_id=f"b{number}")
    assert [each.batch_id async for each in client.list_batches(page_size=2)] == ["b2", "b1", "b0"]
    assert [each.batch_id async for each in client.list_batches(after="b1")] == ["b0"]
    for _ in range(2):
        cancelled = await client.cancel_batch("b1")
        assert (cancelled.state, cancelled.ended) == (BatchState.CANCELLED, True)
    for call in (client.get_batch("none"), client.cancel_batch("none")):
        with pytest.raises(BatchNotFoundError):
            await call
    with pytest.raises(StoredFileNotFoundError):
        await client.submit_batch("none")


async def test_a_batch_is_run_with_progress_and_its_answers_come_back(
    scheduler: FakeScheduler, client: AsyncClient
) -> None:
    seen: list[Batch] = []
    outcome = await client.run_batch(LINES, batch_id="night", on_progress=seen.append, poll=0.1)
    assert [(each.state.value, each.counts.ended) for each in seen] == [
        ("in_progress", 0),
        ("in_progress", 1),
        ("completed", 3),
    ]
    assert outcome.batch.output_file_id == "night-output"
    assert {custom_id: each.text for custom_id, each in outcome.by_custom_id().items()} == {
        "a": "about a",
        "b": "about b",
        "c": "about c",
    }
    assert (len(outcome), all(each.ok for each in outcome)) == (3, True)
    again = await client.run_batch(LINES, batch_id="night")
    assert again == outcome
    assert (len(scheduler.batches), set(scheduler.files)) == (1, {"night-input", "night-output"})


async def test_lines_that_failed_come_last_with_their_errors(scheduler: FakeScheduler, client: AsyncClient) -> None:
    await client.upload_file(LINES, file_id="f")
    await client.submit_batch("f", batch_id="b")
    refused = {"error": {"message": "top_p: too large", "code": "INVALID_REQUEST"}}
    other = {"custom_id": "c", "response": {"status_code": 400, "body": refused}, "error": None}
    errors = failed("b", "batch_expired", "it came too late") + json.dumps(other).encode() + b"\n"
    scheduler.end_batch("b", answered("a", "ä" * 4_000), errors)
    answers = [each async for each in client.batch_answers(await client.get_batch("b"))]
    assert [(each.custom_id, each.ok, each.status_code, each.error_code, each.error) for each in answers] == [
        ("a", True, 200, "", ""),
        ("b", False, 0, "batch_expired", "it came too late"),
        ("c", False, 400, "", "top_p: too large"),
    ]
    assert (answers[0].text, answers[1].text) == ("ä" * 4_000, "")


async def test_an_output_that_is_none_is_said(scheduler: FakeScheduler, client: AsyncClient) -> None:
    await client.upload_file(LINES, file_id="f")
    await client.submit_batch("f", batch_id="b")
    scheduler.end_batch("b", b"[]\n")
    with pytest.raises(ProtocolError, match=r"\[\]"):
        [each async for each in client.batch_answers(await client.get_batch("b"))]


async def test_a_batch_whose_lines_are_none_names_them(scheduler: FakeScheduler, client: AsyncClient) -> None:
    scheduler.ends_after = 100
    await client.upload_file(LINES, file_id="b-input")
    await client.submit_batch("b-input", batch_id="b")
    batch = scheduler.batches["b"]
    batch.state = batch_pb2.BATCH_STATE_FAILED
    batch.ended_at.FromSeconds(1_700_000_001)
    batch.errors.add(code="invalid_url", message="is no endpoint", param="url", line=2)
    with pytest.raises(BatchFailedError, match="batch b: line 2, url: is no endpoint") as failure:
        await client.run_batch(LINES, batch_id="b")
    assert failure.value.batch is not None
    assert failure.value.batch.faults[0].code == "invalid_url"
    assert failure.value.violations[0].field == "line 2, url"


async def test_a_wait_ends_in_time_and_the_batch_goes_on(scheduler: FakeScheduler, client: AsyncClient) -> None:
    scheduler.ends_after = 10_000
    await client.upload_file(LINES, file_id="f")
    await client.submit_batch("f", batch_id="b")
    with pytest.raises(WaitTimeoutError, match=r"batch b is in_progress: \d of 3 lines have ended"):
        await client.wait_batch("b", timeout=0.2, poll=0.1)
    assert not (await client.get_batch("b")).ended


async def test_the_blocking_client_does_the_same(scheduler: FakeScheduler, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(LINES)

    def work() -> None:
        states: list[str] = []
        with Client(scheduler.address, reconnect=QUICK) as client:
            outcome = client.run_batch(path, batch_id="b", on_progress=lambda b: states.append(b.state.value), poll=0.1)
            assert states[-1] == "completed"
            assert {each.custom_id for each in outcome} == {"a", "b", "c"}
            assert [each.file_id for each in client.list_files()] == ["b-output", "b-input"]
            assert b"".join(client.read_file("b-input")) == LINES
            assert client.get_file("b-input").name == "in.jsonl"
            assert [each.batch_id for each in client.list_batches()] == ["b"]
            assert client.cancel_batch("b").state is BatchState.COMPLETED
            client.delete_file("b-output")
            with pytest.raises(StoredFileNotFoundError):
                list(client.batch_answers(outcome.batch))

    await asyncio.to_thread(work)


def test_the_text_of_an_answer_is_that_of_its_first_choice() -> None:
    chat = {"choices": [{"message": {"content": "one"}}, {"message": {"content": "two"}}]}
    for body, text in (
        (chat, "one"),
        ({"choices": [{"text": "one"}]}, "one"),
        ({"choices": [{"message": {"content": None}}]}, ""),
        ({"choices": ["none"]}, ""),
        ({"data": []}, ""),
        (None, ""),
    ):
        assert BatchAnswer(custom_id="a", status_code=200, body=body, error_code="", error="").text == text
