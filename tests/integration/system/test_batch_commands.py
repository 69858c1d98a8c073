"""The command line and an example run batches, against a whole control plane."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from executor_svc.runtime.engine_port import Sampling
from sagectl.cli import sagectl
from sagectl.exit_status import ExitStatus
from tests.integration.system.local_fleet import MODEL, LocalExecutor, LocalFleet
from tests.support.simulated_answer import answer

EXAMPLE = Path(__file__).parents[3] / "clients" / "examples" / "batch_file.py"
LINES = 8

Run = Callable[..., Awaitable[Result]]


def prompt(number: int) -> str:
    return f"Long ago, number {number},"


def line(number: int, **fields: object) -> bytes:
    body = {"model": MODEL, "prompt": prompt(number), "max_tokens": 20, "temperature": 0, **fields}
    request = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/completions", "body": body}
    return json.dumps(request).encode() + b"\n"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[LocalFleet]:
    async with LocalFleet(state_dir=tmp_path / "state") as made:
        yield made


@pytest.fixture
def run(fleet: LocalFleet, one: LocalExecutor) -> Run:
    async def run(*arguments: str) -> Result:
        def work() -> Result:
            return CliRunner().invoke(sagectl, ["batch", *arguments], env={"SAGE_SCHEDULER_ADDRESS": fleet.address})

        return await asyncio.to_thread(work)

    return run


async def test_a_file_is_run_and_its_results_are_those_of_the_engine(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "night.jsonl"
    file.write_bytes(b"".join(line(number) for number in range(LINES)))
    submitted = await run("submit", str(file), "--wait")
    assert submitted.exit_code == 0, submitted.output
    assert submitted.stderr.endswith(f"completed, {LINES} of {LINES} lines\n")
    printed = await run("results", str(file))
    assert printed.exit_code == 0, printed.output
    found = {each["custom_id"]: each for each in map(json.loads, printed.stdout.splitlines())}
    assert len(found) == len(printed.stdout.splitlines()) == LINES
    for number in range(LINES):
        wanted = await answer(prompt(number), Sampling(temperature=0, max_tokens=20))
        assert found[f"line-{number}"]["response"]["body"]["choices"][0]["text"] == wanted.text


async def test_lines_that_fail_are_told_apart(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "night.jsonl"
    file.write_bytes(line(0) + line(1, top_p=7))
    assert (await run("submit", str(file), "--wait")).exit_code == ExitStatus.GENERATION_FAILED
    printed = await run("results", str(file), "--errors", str(tmp_path / "errors"))
    assert printed.exit_code == ExitStatus.GENERATION_FAILED
    assert [json.loads(each)["custom_id"] for each in printed.stdout.splitlines()] == ["line-0"]
    [failed] = (tmp_path / "errors").read_text().splitlines()
    assert json.loads(failed)["custom_id"] == "line-1"
    assert "top_p" in failed


async def test_what_is_no_batch_names_the_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "night.jsonl"
    file.write_bytes(line(0) + b"no json\n")
    submitted = await run("submit", str(file), "--wait")
    assert "line 2" in submitted.stderr
    assert submitted.exit_code == ExitStatus.INVALID
    assert (await run("status", str(file), "--wait")).exit_code == ExitStatus.INVALID
    assert (await run("status", str(file))).exit_code == 0
    assert (await run("results", str(file))).exit_code == ExitStatus.INVALID


async def test_a_batch_is_cancelled_and_listed(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "night.jsonl"
    file.write_bytes(b"".join(line(number, max_tokens=4_000, ignore_eos=True) for number in range(2_000)))
    await run("submit", str(file), "--batch-id", "long")
    assert "cancel" in (await run("cancel", "long")).stdout
    ended = await run("status", "long", "--wait")
    assert ended.stdout.startswith("long: cancelled")
    assert ended.exit_code == ExitStatus.GENERATION_FAILED
    assert "long" in (await run("list")).stdout


async def test_the_example_runs_a_file_of_prompts(fleet: LocalFleet, one: LocalExecutor, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("about cats\nabout dogs\n")

    async def run_example() -> list[dict[str, object]]:
        flags = ("--model", MODEL, "--address", fleet.address, "--max-tokens", "5")
        command = (sys.executable, str(EXAMPLE), "night", str(prompts), *flags)
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
        out, err = await asyncio.wait_for(process.communicate(), 40)
        assert process.returncode == 0, err
        return [json.loads(each) for each in out.splitlines()]

    answers = await run_example()
    assert [each["line"] for each in answers] == [1, 2]
    assert all(each["text"] for each in answers)
    generated = one.engine.load().generation_tokens_total
    assert await run_example() == answers
    assert one.engine.load().generation_tokens_total == generated, "nothing ran twice"
