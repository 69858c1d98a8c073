"""The command line for detached work, against a whole control plane."""

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
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.support.simulated_answer import answer

EXAMPLE = Path(__file__).parents[3] / "clients" / "examples" / "overnight.py"
PROMPT = "Once upon a time"

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[LocalFleet]:
    async with LocalFleet(state_dir=tmp_path / "state") as made:
        yield made


@pytest.fixture
def run(fleet: LocalFleet, one: LocalExecutor) -> Run:
    async def run(*arguments: str) -> Result:
        def work() -> Result:
            return CliRunner().invoke(sagectl, arguments, env={"SAGE_SCHEDULER_ADDRESS": fleet.address})

        return await asyncio.to_thread(work)

    return run


async def test_submit_prints_the_id_and_result_the_text(run: Run) -> None:
    submitted = await run("submit", PROMPT, "--temperature", "0", "--max-tokens", "20", "--keep-result", "60")
    assert submitted.exit_code == 0, submitted.output
    request_id = submitted.stdout.strip()
    assert request_id
    assert "accepted for sim" in submitted.stderr
    wanted = await answer(PROMPT, Sampling(temperature=0, max_tokens=20))
    printed = await run("result", request_id, "--wait")
    assert printed.stdout == f"{wanted.text}\n"
    assert (await run("attach", request_id)).stdout.strip() == wanted.text.strip()


async def test_the_result_of_several_choices_has_them_one_after_the_other(run: Run) -> None:
    options = ("--temperature", "1", "--seed", "7", "--max-tokens", "10", "-n", "3")
    submitted = await run("submit", PROMPT, *options, "--request-id", "r")
    assert submitted.exit_code == 0, submitted.output
    wanted = [(await answer(PROMPT, Sampling(temperature=1.0, seed=7 + i, max_tokens=10))).text for i in range(3)]
    printed = await run("result", "r", "--wait")
    first, second, third = wanted
    assert printed.stdout == f"{first}\n\n[choice 1]\n{second}\n\n[choice 2]\n{third}\n"
    kept = json.loads((await run("result", "r", "--json")).stdout)
    assert [each["text"] for each in kept["result"]["choices"]] == wanted


async def test_the_example_leaves_prompts_and_collects_the_answers_later(
    fleet: LocalFleet, one: LocalExecutor, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("about cats\nabout dogs\n")

    async def run_example() -> tuple[int | None, list[dict[str, object]]]:
        command = (sys.executable, str(EXAMPLE), "night", str(prompts), "--address", fleet.address, "--max-tokens", "5")
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), 20)
        return process.returncode, [json.loads(line) for line in out.splitlines()]

    await run_example()
    for number in (1, 2):
        await fleet.client.attach(f"night-{number}").result()
    status, answers = await run_example()
    assert (status, [each["line"] for each in answers]) == (0, [1, 2])
    assert all(each["text"] for each in answers)
    assert one.engine.load().generation_tokens_total == 10, "nothing ran twice"


async def test_requests_lists_what_was_submitted(run: Run) -> None:
    assert (await run("requests")).stdout == "no detached requests\n"
    for request_id in ("first", "second"):
        await run("submit", PROMPT, "--max-tokens", "3", "--request-id", request_id)
        await run("result", request_id, "--wait")
    listed = json.loads((await run("requests", "--json")).stdout)
    assert [each["request_id"] for each in listed] == ["second", "first"]
    assert {each["state"] for each in listed} == {"finished"}
    assert "second" in (await run("requests", "--limit", "1", "--state", "finished")).stdout
    assert (await run("requests", "--state", "failed")).stdout == "no detached requests\n"


async def test_a_result_that_is_not_there_yet_says_so(run: Run) -> None:
    await run("submit", PROMPT, "--max-tokens", "4000", "--ignore-eos", "--request-id", "r")
    early = await run("result", "r")
    assert early.exit_code == ExitStatus.CONFLICT
    assert "--wait" in early.stderr
    assert (await run("cancel", "r")).stdout == "r: cancelled\n"
    assert (await run("result", "r")).exit_code == ExitStatus.CANCELLED
    assert (await run("result", "unknown")).exit_code == ExitStatus.NOT_FOUND


async def test_the_result_of_an_ordinary_request_needs_no_wait(fleet: LocalFleet, run: Run) -> None:
    done = await fleet.client.generate(PROMPT, max_tokens=5, request_id="r").result()
    printed = await run("result", "r")
    assert (printed.exit_code, printed.stdout) == (0, f"{done.text}\n")


async def test_result_as_json_has_everything(run: Run) -> None:
    await run("submit", PROMPT, "--max-tokens", "5", "--ignore-eos", "--request-id", "r", "--logprobs", "1")
    found = json.loads((await run("result", "r", "--wait", "--json")).stdout)
    assert found["request"]["usage"]["completion_tokens"] == len(found["result"]["token_ids"]) == 5
    assert len(found["result"]["logprobs"]) == 5


async def test_a_wrong_option_is_named_by_its_flag(run: Run) -> None:
    refused = await run("submit", PROMPT, "--top-p", "3")
    assert refused.exit_code == ExitStatus.INVALID
    assert "--top-p" in refused.stderr
    assert (await run("submit", PROMPT, "--detached")).exit_code == ExitStatus.INVALID
