"""Batches through the whole control plane: files up and down, lines in OpenAI's form, ends, restarts."""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from executor_svc.runtime.engine_port import Sampling
from sage.controlplane.v1 import batch_pb2, common_pb2, inference_pb2
from sage_wire.batches import FILE_PIECE_BYTES
from scheduler_svc.transport.openai_lines import codec
from tests.integration.system.local_fleet import MODEL, LocalExecutor, LocalFleet
from tests.integration.system.refusals import refusal
from tests.support.lost_status import with_status
from tests.support.raw_batches import CHAT, RawBatches, jsonl, line
from tests.support.simulated_answer import answer

EMBED = "/v1/embeddings"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[LocalFleet]:
    """A scheduler with a journal, no executor yet."""
    async with LocalFleet(state_dir=tmp_path / "state", batches={"tenant_bytes": 3 * FILE_PIECE_BYTES}) as made:
        yield made


@pytest.fixture
def batches(fleet: LocalFleet) -> RawBatches:
    return RawBatches(fleet.channel())


async def ended(batches: RawBatches, lines: list[Any], **wanted: Any) -> batch_pb2.BatchView:
    return await batches.until_ended((await batches.submit(lines, **wanted)).batch_id)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await with_status(call)
    return caught.value


def reason(error: grpc.aio.AioRpcError) -> str:
    return refusal(error).reason


async def test_each_line_has_its_answer_in_openais_form(batches: RawBatches, one: LocalExecutor) -> None:
    lines = [
        line("text", prompt="Once upon a time", max_tokens=12),
        line("chat", CHAT, model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_completion_tokens=5),
    ]
    batch = await ended(batches, lines, metadata={"of": "test"})
    assert batch.state == batch_pb2.BATCH_STATE_COMPLETED
    assert (batch.counts.total, batch.counts.completed, batch.counts.failed) == (2, 2, 0)
    assert (batch.error_file_id, dict(batch.metadata)) == ("", {"of": "test"})
    assert batch.priority == common_pb2.PRIORITY_BACKGROUND
    found = await batches.results(batch.output_file_id)
    assert found["text"].keys() == {"id", "custom_id", "response", "error"}
    text = found["text"]["response"]
    wanted = await answer("Once upon a time", Sampling(temperature=0, max_tokens=12))
    assert (text["status_code"], text["request_id"]) == (200, f"{batch.batch_id}/0")
    assert text["body"]["object"] == "text_completion"
    assert text["body"]["choices"][0]["text"] == wanted.text
    assert text["body"]["choices"][0]["finish_reason"] == "length"
    assert text["body"]["usage"]["completion_tokens"] == 12
    chat = found["chat"]["response"]["body"]
    assert (chat["object"], chat["model"]) == ("chat.completion", MODEL)
    assert chat["choices"][0]["message"]["role"] == "assistant"
    assert chat["usage"]["completion_tokens"] == 5
    assert one.engine.load().generation_tokens_total == 17


async def test_a_file_made_for_vllms_run_batch_works_as_it_is(batches: RawBatches, one: LocalExecutor) -> None:
    content = b"""{"custom_id": "request-1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "sim", \
"messages": [{"role": "system", "content": "You are a helpful assistant."},\
{"role": "user", "content": "Hello world!"}], "max_completion_tokens": 8}}

{"custom_id": "request-2", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "sim", \
"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}], "max_completion_tokens": 8, \
"top_k": -1, "repetition_penalty": 1.1, "min_tokens": 2, "skip_special_tokens": false, "stream": false}}"""
    file = (await batches.upload(content)).file
    request = inference_pb2.SubmitBatchRequest(input_file_id=file.file_id)
    batch = await batches.until_ended((await batches.stub.SubmitBatch(request)).batch_id)
    assert (await batches.results(batch.output_file_id)).keys() == {"request-1", "request-2"}


async def test_several_prompts_and_choices_are_in_order_and_count_each_prompt_once(
    batches: RawBatches, one: LocalExecutor
) -> None:
    prompts = ["Once upon a time", "Far away"]
    batch = await ended(batches, [line("a", prompt=prompts, n=2, max_tokens=6)])
    body = (await batches.results(batch.output_file_id))["a"]["response"]["body"]
    wanted = [(await answer(prompt, Sampling(temperature=0, max_tokens=6))).text for prompt in prompts]
    assert [each["text"] for each in body["choices"]] == [wanted[0], wanted[0], wanted[1], wanted[1]]
    assert [each["index"] for each in body["choices"]] == [0, 1, 2, 3]
    assert body["usage"]["completion_tokens"] == 24
    single = await ended(batches, [line("a", prompt=prompts[0]), line("b", prompt=prompts[1])])
    alone = [each["response"]["body"]["usage"] for each in (await batches.results(single.output_file_id)).values()]
    assert body["usage"]["prompt_tokens"] == sum(each["prompt_tokens"] for each in alone)


async def test_embeddings_are_lines_too(fleet: LocalFleet, batches: RawBatches) -> None:
    await fleet.add("e", settings={"role": "embedding"})
    lines = [
        line("floats", EMBED, model=MODEL, input=["one", "two"]),
        line("bytes", EMBED, model=MODEL, input="one", encoding_format="base64"),
        line("wrong", EMBED, model=MODEL, input=["one", 7.5]),
    ]
    batch = await ended(batches, lines, endpoint=EMBED)
    found = await batches.results(batch.output_file_id)
    floats = [each["embedding"] for each in found["floats"]["response"]["body"]["data"]]
    packed = found["bytes"]["response"]["body"]["data"][0]["embedding"]
    assert len(floats) == 2
    assert array("f", base64.b64decode(packed)).tolist() == floats[0]
    error = (await batches.results(batch.error_file_id))["wrong"]["response"]["body"]["error"]
    assert (error["param"], error["code"], error["type"]) == ("input", "INVALID_REQUEST", "invalid_request_error")


async def test_a_line_that_asks_for_too_much_is_told_how_to_ask(
    fleet: LocalFleet, batches: RawBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "VECTOR_NUMBERS", 1)
    monkeypatch.setattr(codec, "RESULT_BYTES", 4_000)
    await fleet.add("e", settings={"role": "embedding"})
    lines = [
        line("numbers", EMBED, input="one"),
        line("bytes", EMBED, input="one", encoding_format="base64"),
        line("large", EMBED, input=["one"] * 100, encoding_format="base64"),
    ]
    batch = await ended(batches, lines)
    errors = await batches.results(batch.error_file_id)
    messages = {name: each["response"]["body"]["error"]["message"] for name, each in errors.items()}
    assert "or ask for encoding_format base64" in messages["numbers"]
    assert "the limit is 4000" in messages["large"]
    assert (await batches.results(batch.output_file_id)).keys() == {"bytes"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 9}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop": [7]}, "stop"),
        ({"stream": True}, "stream"),
        ({"logprobs": 3}, "logprobs"),
        ({"n": 17}, "n"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"response_format": {"type": "poem"}}, "response_format"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"sage": {"priority": "soon"}}, "sage.priority"),
        ({"sage": {"detached": True}}, "sage.detached"),
        ({"tools": [{"type": "function"}]}, "tools"),
    ],
)
async def test_a_member_that_is_at_fault_is_named(
    batches: RawBatches, one: LocalExecutor, body: dict[str, Any], param: str
) -> None:
    batch = await ended(batches, [line("a", **body)])
    response = (await batches.results(batch.error_file_id))["a"]["response"]
    assert (response["status_code"], response["body"]["error"]["param"]) == (400, param)


async def test_a_model_that_is_nobodys_is_404(tmp_path: Path) -> None:
    async with LocalFleet(state_dir=tmp_path / "state", batches={"unknown_model_s": 0.0}) as fleet:
        await fleet.add("one")
        batches = RawBatches(fleet.channel())
        batch = await ended(batches, [line("a", model="nobodys")])
        response = (await batches.results(batch.error_file_id))["a"]["response"]
        assert (response["status_code"], response["body"]["error"]["code"]) == (404, "UNKNOWN_MODEL")


async def test_lines_of_another_endpoint_keep_the_batch_from_running(batches: RawBatches) -> None:
    batch = await ended(batches, [line("a"), line("b", CHAT, messages=[])], endpoint="/v1/completions")
    assert batch.state == batch_pb2.BATCH_STATE_FAILED
    assert [(each.code, each.line, each.param) for each in batch.errors] == [("mismatched_url", 2, "url")]
    assert (batch.output_file_id, batch.error_file_id) == ("", "")


async def test_cancelling_and_asking_again(batches: RawBatches, fleet: LocalFleet) -> None:
    submitted = await batches.submit([line(str(number)) for number in range(20)])
    request = batch_pb2.CancelBatchRequest(batch_id=submitted.batch_id)
    assert (await batches.stub.CancelBatch(request)).cancelled
    batch = await batches.until_ended(submitted.batch_id)
    assert batch.state == batch_pb2.BATCH_STATE_CANCELLED
    assert batch.HasField("cancelling_at")
    assert batch.HasField("keep_until")
    assert not (await batches.stub.CancelBatch(request)).cancelled


async def test_the_same_submission_attaches_and_other_content_is_refused(batches: RawBatches) -> None:
    file = (await batches.upload(jsonl([line("a")]))).file
    request = inference_pb2.SubmitBatchRequest(batch_id="b", input_file_id=file.file_id)
    assert not (await batches.stub.SubmitBatch(request)).attached
    assert (await batches.stub.SubmitBatch(request)).attached
    request.endpoint = "/v1/completions"
    error = await refused(lambda: batches.stub.SubmitBatch(request))
    assert (error.code(), reason(error)) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_CONFLICT")


async def test_every_field_at_fault_is_named(batches: RawBatches) -> None:
    request = inference_pb2.SubmitBatchRequest(
        batch_id="b" * 201,
        requests=[inference_pb2.SubmitRequest()],
        endpoint="/v1/poems",
        priority=99,  # type: ignore[arg-type]
        metadata={str(number): "" for number in range(17)},
    )
    request.deadline.seconds = 10**7
    error = await refused(lambda: batches.stub.SubmitBatch(request))
    for field in ("batch_id", "requests", "input_file_id", "endpoint", "priority", "metadata", "deadline"):
        assert f"{field}: " in (error.details() or "")


@pytest.mark.parametrize(
    ("method", "request_", "wanted"),
    [
        ("GetBatch", batch_pb2.GetBatchRequest(batch_id="x"), "BATCH_NOT_FOUND"),
        ("CancelBatch", batch_pb2.CancelBatchRequest(batch_id="x"), "BATCH_NOT_FOUND"),
        ("GetFile", batch_pb2.GetFileRequest(file_id="x"), "FILE_NOT_FOUND"),
        ("DeleteFile", batch_pb2.DeleteFileRequest(file_id="x"), "FILE_NOT_FOUND"),
        ("SubmitBatch", inference_pb2.SubmitBatchRequest(input_file_id="x"), "FILE_NOT_FOUND"),
        ("ListFiles", batch_pb2.ListFilesRequest(page_token="x"), "INVALID_REQUEST"),
        ("ListFiles", batch_pb2.ListFilesRequest(page_size=1_001), "INVALID_REQUEST"),
        ("ListBatches", batch_pb2.ListBatchesRequest(page_token="x"), "INVALID_REQUEST"),
    ],
)
async def test_what_is_not_there(batches: RawBatches, method: str, request_: Any, wanted: str) -> None:
    error = await refused(lambda: getattr(batches.stub, method)(request_))
    assert reason(error) == wanted


async def test_without_a_journal_there_are_no_batches() -> None:
    async with LocalFleet() as fleet:
        batches = RawBatches(fleet.channel())
        for call in (
            lambda: batches.get("b"),
            lambda: batches.upload(b"x"),
            lambda: batches.content("f"),
            lambda: batches.stub.SubmitBatch(inference_pb2.SubmitBatchRequest(input_file_id="f")),
        ):
            error = await refused(call)
            assert (error.code(), reason(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_JOURNAL")


# --- files --------------------------------------------------------------------------------------


async def test_a_file_comes_back_as_it_was_sent_from_any_position(batches: RawBatches) -> None:
    content = bytes(range(256)) * 5_000
    answered = await batches.upload(content, file_id="f", filename="é.jsonl")
    assert (answered.existed, answered.file.bytes, answered.file.filename) == (False, len(content), "é.jsonl")
    assert await batches.content("f") == content
    assert await batches.content("f", 300_001) == content[300_001:]
    assert await batches.content("f", len(content)) == b""
    error = await refused(lambda: batches.content("f", len(content) + 1))
    assert "offset: " in (error.details() or "")
    assert (await batches.upload(content, file_id="f", piece=FILE_PIECE_BYTES)).existed
    error = await refused(lambda: batches.upload(content[:-1], file_id="f"))
    assert reason(error) == "REQUEST_CONFLICT"
    await batches.stub.DeleteFile(batch_pb2.DeleteFileRequest(file_id="f"))
    assert reason(await refused(lambda: batches.content("f"))) == "FILE_NOT_FOUND"


async def test_refused_uploads_say_why_and_leave_nothing(batches: RawBatches) -> None:
    for new, field in (
        ({"file_id": "x" * 257}, "file.file_id"),
        ({"file_id": "b-output"}, "file.file_id"),
        ({"filename": "\n"}, "file.filename"),
        ({"purpose": batch_pb2.FILE_PURPOSE_BATCH_OUTPUT}, "file.purpose"),
    ):
        error = await refused(lambda new=new: batches.upload(b"x", **new))
        assert f"{field}: " in (error.details() or "")
    error = await refused(lambda: batches.upload(b"x" * 4 * FILE_PIECE_BYTES))
    assert (error.code(), reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TENANT_LIMIT")
    error = await refused(lambda: batches.upload(b"x" * (FILE_PIECE_BYTES + 1), piece=FILE_PIECE_BYTES + 1))
    assert "content: " in (error.details() or "")
    assert not (await batches.stub.ListFiles(batch_pb2.ListFilesRequest())).files


async def test_lists_come_in_pages_the_latest_first(batches: RawBatches, one: LocalExecutor) -> None:
    for number in range(5):
        await batches.upload(b"x", file_id=f"f{number}")
    found: list[str] = []
    token = ""
    while True:
        request = batch_pb2.ListFilesRequest(page_size=2, page_token=token)
        page = await batches.stub.ListFiles(request)
        found += [each.file_id for each in page.files]
        token = page.next_page_token
        if not token:
            break
    assert found == ["f4", "f3", "f2", "f1", "f0"]
    batch = await ended(batches, [line("a")], batch_id="b")
    listed = (await batches.stub.ListBatches(batch_pb2.ListBatchesRequest())).batches
    assert list(listed) == [batch]
    outputs = await batches.stub.ListFiles(batch_pb2.ListFilesRequest(purpose=batch_pb2.FILE_PURPOSE_BATCH_OUTPUT))
    assert [each.file_id for each in outputs.files] == ["b-output"]


# --- restarts -----------------------------------------------------------------------------------


async def test_a_batch_goes_on_with_the_next_scheduler(tmp_path: Path) -> None:
    settings = {"state_dir": tmp_path / "state", "recovery": {"limit_s": 0.5}}
    async with LocalFleet(**settings) as fleet:
        batches = RawBatches(fleet.channel())
        submitted = await batches.submit([line(str(number), max_tokens=4) for number in range(40)], batch_id="b")
        assert submitted.state == batch_pb2.BATCH_STATE_VALIDATING
    async with LocalFleet(**settings) as fleet:
        await fleet.add("one")
        batches = RawBatches(fleet.channel())
        batch = await batches.until_ended("b")
        assert (batch.state, batch.counts.completed) == (batch_pb2.BATCH_STATE_COMPLETED, 40)
        results = await batches.results(batch.output_file_id)
        assert results.keys() == {str(number) for number in range(40)}
        assert json.dumps(results)
