"""The examples run as they stand."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from sage_wire.errors import ErrorReason
from tests.integration.clients.fake_scheduler import (
    FakeScheduler,
    accepted,
    default_generate,
    fail,
    retry_in,
    whole_text,
)

pytestmark = pytest.mark.usefixtures("transport")

EXAMPLES = Path(__file__).parents[3] / "clients" / "examples"


async def run(name: str, *arguments: str, stdin: str = "") -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / name), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 20)
    return process.returncode, out.decode(), err.decode()


async def test_a_chat_sends_the_whole_conversation_with_every_turn(scheduler: FakeScheduler) -> None:
    said = await run("chat.py", "--address", scheduler.address, "--max-tokens", "3", stdin="hello\n\nand again\n")

    assert said == (0, f"{whole_text(3)}\n" * 2, "")
    turns = [[(m.role, m.content[0].text) for m in request.spec.chat.messages] for request in scheduler.requests]
    assert turns == [
        [("user", "hello")],
        [("user", "hello"), ("assistant", whole_text(3)), ("user", "and again")],
    ]
    assert len({request.spec.session for request in scheduler.requests}) == 1


async def test_embed_prints_the_closest_lines(scheduler: FakeScheduler, tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("about cats\nabout dogs\n\nabout cars\n")
    status, out, err = await run("embed.py", str(file), "cats", "--best", "2", "--address", scheduler.address)

    assert (status, err) == (0, "")
    assert [line.split("  ")[1] for line in out.splitlines()] == ["about cats", "about cars"]
    assert [each.text for each in scheduler.embed_requests[0].inputs] == [
        "cats",
        "about cats",
        "about dogs",
        "about cars",
    ]


async def test_a_batch_waits_out_a_full_queue_and_tells_failures(scheduler: FakeScheduler, tmp_path: Path) -> None:
    async def generate(request, context):  # type: ignore[no-untyped-def]
        if request.spec.text == "bad":
            await fail(context, ErrorReason.INVALID_REQUEST, "it is bad")
        if request.spec.text == "late" and len(scheduler.requests) < 5:
            await fail(context, ErrorReason.QUEUE_FULL, "full", retry_in(0.01))
            yield accepted(request)
        async for event in default_generate(request, context):
            yield event

    scheduler.generate = generate
    prompts = tmp_path / "prompts"
    prompts.write_text("good\nbad\nlate\n")
    status, out, err = await run("batch.py", str(prompts), "--address", scheduler.address, "--max-tokens", "3")
    answers = {answer["line"]: answer for answer in map(json.loads, out.splitlines())}

    assert (status, err) == (1, "")
    good = {"text": whole_text(3), "tokens": 3, "instance": "executor-1"}
    assert answers == {1: {"line": 1, **good}, 2: {"line": 2, "error": "it is bad"}, 3: {"line": 3, **good}}


async def test_a_file_of_prompts_is_run_as_a_batch_once(scheduler: FakeScheduler, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("about cats\nabout dogs\n")
    for _ in range(2):
        status, out, err = await run(
            "batch_file.py", "night", str(prompts), "--model", "tiny", "--address", scheduler.address
        )
        assert (status, err.splitlines()[-1]) == (0, "completed: 2 of 2 lines")
        assert [json.loads(line) for line in out.splitlines()] == [
            {"line": 1, "text": "about 1"},
            {"line": 2, "text": "about 2"},
        ]
    assert set(scheduler.batches) == {"night"}
    [first, _] = map(json.loads, scheduler.contents["night-input"].splitlines())
    assert first["url"] == "/v1/chat/completions"
    assert first["body"]["messages"] == [{"role": "user", "content": "about cats"}]
