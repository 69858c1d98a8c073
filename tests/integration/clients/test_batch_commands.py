"""``sagectl batch`` against a scheduler that answers as told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sage.controlplane.v1 import batch_pb2, common_pb2
from sagectl.cli import sagectl
from sagectl.commands import batch as batch_command
from sagectl.exit_status import ExitStatus
from tests.integration.clients.fake_batches import CREATED_S, answered, failed
from tests.integration.clients.fake_scheduler import FakeScheduler

LINES = b'{"custom_id": "a", "body": {}}\n{"custom_id": "b", "body": {}}\n'
Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def run(scheduler: FakeScheduler) -> Run:
    async def run(*arguments: str, stdin: bytes | None = None) -> Result:
        def work() -> Result:
            environment = {"SAGE_SCHEDULER_ADDRESS": scheduler.address}
            return CliRunner().invoke(sagectl, ["batch", *arguments], input=stdin, env=environment)

        return await asyncio.wait_for(asyncio.to_thread(work), 20)

    return run


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "night.jsonl"
    path.write_bytes(LINES)
    return str(path)


async def test_a_file_is_submitted_under_an_id_of_its_own(scheduler: FakeScheduler, run: Run, file: str) -> None:
    first, again = await run("submit", file), await run("submit", file)
    assert first.exit_code == 0, first.output
    batch_id = first.stdout.strip()
    assert batch_id.startswith("night-")
    assert first.stderr == f"{batch_id}: validating\n"
    assert again.stdout == first.stdout
    assert set(scheduler.batches) == {batch_id}
    assert scheduler.contents == {f"{batch_id}-input": LINES}
    assert scheduler.files[f"{batch_id}-input"].filename == "night.jsonl"


async def test_every_option_is_sent(scheduler: FakeScheduler, run: Run, file: str) -> None:
    options = "--endpoint /v1/completions --batch-id mine --priority low --deadline 7200 --keep-result 90"
    done = await run("submit", file, *options.split(), "--metadata", "for=me", "--metadata", "a=b=c", "--json")
    assert done.exit_code == 0, done.output
    [request] = scheduler.submitted
    assert (request.batch_id, request.endpoint) == ("mine", "/v1/completions")
    assert (request.deadline.seconds, request.keep_result.seconds) == (7_200, 90)
    assert request.priority == common_pb2.PRIORITY_LOW
    assert dict(request.metadata) == {"for": "me", "a": "b=c"}
    assert json.loads(done.stdout)["batch_id"] == "mine"


async def test_waiting_shows_progress_in_lines_where_there_is_no_terminal(
    scheduler: FakeScheduler, run: Run, file: str
) -> None:
    scheduler.ends_after = 4
    done = await run("submit", file, "--batch-id", "b", "--wait")
    assert done.stdout == "b\n"
    assert done.stderr.splitlines() == [
        "b: in_progress, 0 of 2 lines",
        "b: in_progress, 1 of 2 lines",
        "b: in_progress, 2 of 2 lines",
        "b: completed, 2 of 2 lines",
    ]


async def test_lines_come_from_stdin_too(scheduler: FakeScheduler, run: Run) -> None:
    done = await run("submit", "-", stdin=LINES)
    assert done.exit_code == 0, done.output
    assert list(scheduler.contents.values()) == [LINES]


async def test_lines_from_stdin_are_sent_again_if_the_connection_breaks(scheduler: FakeScheduler, run: Run) -> None:
    scheduler.broken_uploads = 1
    done = await run("submit", "-", stdin=LINES)
    assert done.exit_code == 0, done.output
    assert list(scheduler.contents.values()) == [LINES]


async def test_more_from_stdin_than_is_copied_is_refused(
    scheduler: FakeScheduler, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_command, "STDIN_LIMIT_BYTES", 10)
    refused = await run("submit", "-", stdin=LINES)
    assert (refused.exit_code, scheduler.files) == (ExitStatus.INVALID, {})
    assert "stdin has more than 10 bytes" in refused.stderr


async def test_status_is_by_id_or_by_file(run: Run, file: str) -> None:
    batch_id = (await run("submit", file)).stdout.strip()
    assert (await run("status", file)).stdout == f"{batch_id}: in_progress, 0 of 2 lines\n"
    assert (await run("status", batch_id)).stdout == f"{batch_id}: in_progress, 1 of 2 lines\n"
    waited = await run("status", file, "--wait", "--json")
    assert json.loads(waited.stdout)["state"] == "completed"
    unknown = await run("status", "none")
    assert (unknown.exit_code, unknown.stdout) == (ExitStatus.NOT_FOUND, "")


async def test_results_are_the_lines_of_both_files(
    scheduler: FakeScheduler, run: Run, file: str, tmp_path: Path
) -> None:
    batch_id = (await run("submit", file)).stdout.strip()
    early = await run("results", file)
    assert (early.exit_code, early.stdout) == (ExitStatus.CONFLICT, "")
    assert "--wait waits for its end" in early.stderr
    output, errors = answered("a", "ä"), failed("b", "batch_expired", "too late")
    scheduler.end_batch(batch_id, output, errors)
    done = await run("results", file)
    assert done.exit_code == ExitStatus.GENERATION_FAILED
    assert done.stdout_bytes == output + errors
    assert done.stderr == f"{batch_id}: completed, 2 of 2 lines, 1 of them failed\n"
    apart = await run("results", batch_id, "--errors", str(tmp_path / "errors"))
    assert apart.stdout_bytes == output
    assert (tmp_path / "errors").read_bytes() == errors


async def test_results_of_a_batch_without_failures_exit_with_0(run: Run, file: str) -> None:
    await run("submit", file)
    done = await run("results", file, "--wait")
    assert done.exit_code == 0
    assert [json.loads(line)["custom_id"] for line in done.stdout.splitlines()] == ["a", "b"]


async def test_there_may_be_results_so_far(scheduler: FakeScheduler, run: Run, file: str) -> None:
    scheduler.ends_after = 100
    batch_id = (await run("submit", file)).stdout.strip()
    scheduler.add_file("so-far", answered("a", "x"))
    scheduler.batches[batch_id].output_file_id = "so-far"
    assert (await run("results", file, "--so-far")).stdout_bytes == answered("a", "x")


async def test_lines_that_cannot_be_run_are_named(scheduler: FakeScheduler, run: Run, file: str) -> None:
    await run("submit", file, "--batch-id", "b")
    batch = scheduler.batches["b"]
    batch.state = batch_pb2.BATCH_STATE_FAILED
    batch.ended_at.FromSeconds(CREATED_S)
    batch.errors.add(code="invalid_url", message="no such url", param="url", line=2)
    assert (await run("status", "b")).stdout == "b: failed\n  line 2: no such url\n"
    refused = await run("results", "b")
    assert refused.exit_code == ExitStatus.INVALID
    assert "line 2, url: no such url" in refused.stderr


@pytest.mark.parametrize("state", ["EXPIRED", "CANCELLED"])
async def test_a_batch_that_ended_before_its_lines_were_counted_is_no_success(
    scheduler: FakeScheduler, run: Run, file: str, state: str
) -> None:
    await run("submit", file, "--batch-id", "b")
    batch = scheduler.batches["b"]
    batch.state = batch_pb2.BatchState.Value(f"BATCH_STATE_{state}")
    batch.counts.Clear()
    batch.ended_at.FromSeconds(CREATED_S)
    done = await run("results", "b")
    assert (done.exit_code, done.stdout) == (ExitStatus.GENERATION_FAILED, "")
    assert done.stderr == f"b: {state.lower()}\n"


async def test_waiting_exits_with_what_became_of_the_batch(scheduler: FakeScheduler, run: Run, file: str) -> None:
    batch_id = (await run("submit", file)).stdout.strip()
    scheduler.end_batch(batch_id, answered("a", "x"), failed("b", "batch_expired", "too late"))
    for command in ("submit", "status"):
        assert (await run(command, file)).exit_code == ExitStatus.OK
        waited = await run(command, file, "--wait")
        assert waited.exit_code == ExitStatus.GENERATION_FAILED
        assert f"{batch_id}: completed, 2 of 2 lines, 1 of them failed" in waited.output
    scheduler.batches[batch_id].state = batch_pb2.BATCH_STATE_FAILED
    assert (await run("status", file, "--wait")).exit_code == ExitStatus.INVALID


async def test_batches_are_listed_and_cancelled(run: Run, file: str) -> None:
    assert (await run("list")).stdout == "no batches\n"
    for batch_id in ("first", "second"):
        await run("submit", file, "--batch-id", batch_id)
    assert [each["batch_id"] for each in json.loads((await run("list", "--json")).stdout)] == ["second", "first"]
    listed = (await run("list", "--limit", "1")).stdout
    assert "second" in listed
    assert "first" not in listed
    assert (await run("cancel", "first")).stdout == "first: cancelled\n"


async def test_what_is_wrong_is_named(run: Run, file: str) -> None:
    for arguments, what in (
        (["submit", "no-such-file"], "no-such-file"),
        (["submit", file, "--priority", "urgent"], "urgent"),
        (["submit", file, "--deadline", "soon"], "soon"),
        (["submit", file, "--metadata", "x"], "--metadata"),
    ):
        refused = await run(*arguments)
        assert refused.exit_code == ExitStatus.INVALID, refused.output
        assert what in refused.stderr


async def test_the_beginning_of_an_id_is_enough(run: Run, file: str) -> None:
    for batch_id in ("first", "fine", "second"):
        await run("submit", file, "--batch-id", batch_id)
    assert (await run("list", "-o", "name")).stdout == "second\nfine\nfirst\n"
    assert (await run("status", "fir", "-o", "name")).stdout == "first\n"
    assert (await run("cancel", "sec")).stdout == "second: cancelled\n"
    several = await run("status", "fi")
    assert several.exit_code == ExitStatus.INVALID
    assert "2 batches: fine, first" in several.stderr
