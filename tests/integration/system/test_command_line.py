"""The command line against a whole control plane: formats, options before the command, ids, completion."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from sagectl.cli import sagectl
from sagectl.exit_status import ExitStatus
from tests.integration.system.local_fleet import LocalFleet
from tests.support.eventually import eventually
from tests.support.terminal import Terminal

Run = Callable[..., Awaitable[Result]]

SHOWING = (
    ("instances",),
    ("models",),
    ("requests",),
    ("explain", "night-1"),
    ("result", "night-1"),
    ("policy", "get"),
    ("policy", "shadow"),
    ("pd", "get"),
    ("usage",),
    ("usage", "--records"),
    ("journal", "status"),
    ("doctor",),
    ("version",),
    ("top", "--once"),
)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[LocalFleet]:
    async with LocalFleet(state_dir=tmp_path / "state") as made:
        await asyncio.gather(made.add("executor-1"), made.add("executor-2"), made.add("other-1"))
        job = await made.client.submit("Once", max_tokens=3, request_id="night-1")
        await job.result()
        await eventually(lambda: _usage_is_written(made))
        yield made


async def _usage_is_written(fleet: LocalFleet) -> bool:
    return [each.request_id async for each in fleet.client.list_usage()] == ["night-1"]


@pytest.fixture
def run(fleet: LocalFleet) -> Run:
    async def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
        def work() -> Result:
            return CliRunner().invoke(sagectl, arguments, env={"SAGE_SCHEDULER_ADDRESS": fleet.address, **(env or {})})

        return await asyncio.wait_for(asyncio.to_thread(work), 30)

    return run


@pytest.mark.parametrize("arguments", SHOWING, ids=" ".join)
async def test_what_shows_something_prints_json_and_yaml_of_the_same_keys(run: Run, arguments: tuple[str, ...]) -> None:
    as_json, as_yaml, flag = [await run(*arguments, *how) for how in (["-o", "json"], ["-o", "yaml"], ["--json"])]
    assert (as_json.exit_code, as_yaml.exit_code, flag.exit_code) == (0, 0, 0), as_json.output
    found, same = json.loads(as_json.stdout), yaml.safe_load(as_yaml.stdout)
    assert type(found) is type(same)
    if isinstance(found, dict):
        assert found.keys() == same.keys() == json.loads(flag.stdout).keys()


@pytest.mark.parametrize("arguments", SHOWING, ids=" ".join)
async def test_tables_are_plain_in_a_pipe(run: Run, arguments: tuple[str, ...]) -> None:
    for how in ("table", "wide"):
        shown = await run(*arguments, "-o", how)
        assert shown.exit_code == 0, shown.output
        assert not set("┃│━┏\x1b") & set(shown.stdout)
        assert all(line == line.rstrip() for line in shown.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("instances",), ["executor-1", "executor-2", "other-1"]),
        (("top",), ["executor-1", "executor-2", "other-1"]),
        (("models",), ["sim"]),
        (("requests",), ["night-1"]),
        (("usage", "--records"), ["night-1"]),
        (("explain", "night-1"), ["night-1"]),
        (("attach", "night-1"), ["night-1"]),
        (("pd", "get"), ["never"]),
        (("drain", "other"), ["other-1"]),
        (("cancel", "night"), ["night-1"]),
    ],
    ids=" ".join,
)
async def test_names_are_printed_alone(run: Run, arguments: tuple[str, ...], names: list[str]) -> None:
    shown = await run(*arguments, "-o", "name")
    assert (shown.exit_code, shown.stdout.splitlines()) == (0, names), shown.output


async def test_a_table_fits_80_columns_with_whole_ids_and_the_role(fleet: LocalFleet) -> None:
    command = [sys.executable, "-m", "sagectl", "instances"]
    async with Terminal(command, {"SAGE_SCHEDULER_ADDRESS": fleet.address}) as terminal:
        assert await terminal.ended() == 0
        lines = [line.rstrip("\r") for line in terminal.text.splitlines()]
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("executor-1  general  ready ") for line in lines)
    assert "(-o wide shows all)" in terminal.text


async def test_options_may_stand_before_the_command_and_those_after_it_count_more(run: Run, fleet: LocalFleet) -> None:
    nowhere = {"SAGE_SCHEDULER_ADDRESS": "127.0.0.1:1"}
    before = await run("--address", fleet.address, "-o", "name", "models", env=nowhere)
    assert (before.exit_code, before.stdout) == (0, "sim\n")
    after = await run("--address", "127.0.0.1:1", "--json", "models", "--address", fleet.address, "-o", "name")
    assert (after.exit_code, after.stdout) == (0, "sim\n")
    both = await run("models", "--json", "-o", "yaml")
    assert (both.exit_code, "give one of them" in both.stderr) == (ExitStatus.INVALID, True)


async def test_an_id_may_be_given_by_its_beginning(run: Run) -> None:
    drained = await run("drain", "oth")
    assert (drained.exit_code, drained.stdout) == (0, "other-1: drained, 0 requests in flight\n")
    assert (await run("resume", "other")).exit_code == 0
    assert (await run("result", "nig")).exit_code == 0
    assert (await run("explain", "n")).stdout.startswith("night-1: finished")


async def test_a_beginning_of_several_ids_is_refused_with_the_candidates(run: Run) -> None:
    for command in ("instances", "drain", "resume"):
        refused = await run(command, "exec")
        assert refused.exit_code == ExitStatus.INVALID
        assert refused.stderr == "error: 'exec' is the beginning of 2 instances: executor-1, executor-2\n"
    assert "other-1" in (await run("instances", "-o", "name")).stdout


async def test_an_id_that_none_begins_with_is_not_found(run: Run) -> None:
    for arguments in (("drain", "x"), ("role", "x", "general"), ("attach", "x"), ("cancel", "x"), ("explain", "x")):
        missing = await run(*arguments)
        assert (missing.exit_code, missing.stdout) == (ExitStatus.NOT_FOUND, "")
        assert missing.stderr.startswith("error: no ")


async def test_splitting_that_cannot_be_is_said(run: Run) -> None:
    always = await run("pd", "set", "always")
    assert always.exit_code == 0
    assert "warning: nothing will be split: no instance of 'sim' that takes prefill legs is ready" in always.stderr
    decoding = await run("role", "other-1", "decoding")
    assert "other-1: decoding\n" in decoding.stdout
    assert "warning: nothing will be split: " in decoding.stderr
    never = await run("pd", "set", "never")
    assert never.stderr == ""
    assert "the mode is never" in (await run("role", "other-1", "hybrid")).stderr


async def test_versions_of_all_parts(run: Run) -> None:
    found = json.loads((await run("version", "--json")).stdout)
    assert found["client"]
    assert [each["state"] for each in found["schedulers"]] == ["leading"]
    assert [each["instance_id"] for each in found["executors"]] == ["executor-1", "executor-2", "other-1"]


async def test_without_a_scheduler_the_clients_version_is_printed_all_the_same(run: Run) -> None:
    nowhere = {"SAGE_SCHEDULER_ADDRESS": "127.0.0.1:1"}
    found = await run("version", env=nowhere)
    assert found.exit_code == ExitStatus.UNAVAILABLE
    assert "sagectl" in found.stdout
    assert found.stderr == "error: cannot reach the scheduler at 127.0.0.1:1: connection refused\n"
    assert (await run("version", "--client", env=nowhere)).exit_code == 0


async def test_an_empty_prompt_is_called_so(run: Run) -> None:
    assert (await run("generate", "")).stderr == "error: PROMPT: is empty\n"


async def test_a_file_that_cannot_be_written_is_an_error_in_one_line(run: Run) -> None:
    refused = await run("explain", "night-1", "--svg", "/nonexistent/picture.svg")
    assert (refused.exit_code, refused.stderr) == (
        ExitStatus.INVALID,
        "error: /nonexistent/picture.svg: No such file or directory\n",
    )


async def complete(address: str, words: str) -> list[str]:
    """What bash would offer after these words, the last of which is not complete."""
    environment = {
        **os.environ,
        "SAGE_SCHEDULER_ADDRESS": address,
        "_SAGECTL_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    program = "import sys; sys.argv = ['sagectl']; from sagectl.__main__ import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=environment
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return [line.partition(",")[2] for line in out.decode().splitlines() if line]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("sagectl inst", ["instances"]),
        ("sagectl drain exec", ["executor-1", "executor-2"]),
        ("sagectl explain n", ["night-1"]),
        ("sagectl policy set slo", ["slo_aware"]),
        ("sagectl generate --model ", ["sim"]),
        ("sagectl generate --priority h", ["high"]),
        ("sagectl instances -o y", ["yaml"]),
    ],
)
async def test_a_shell_completes_commands_options_and_ids(fleet: LocalFleet, words: str, offered: list[str]) -> None:
    assert await complete(fleet.address, words) == offered


async def test_without_a_scheduler_nothing_is_offered_and_nothing_is_said(fleet: LocalFleet) -> None:
    assert await complete("127.0.0.1:1", "sagectl drain e") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_asks_sagectl(shell: str) -> None:
    printed = CliRunner().invoke(sagectl, ["completion", shell])
    assert printed.exit_code == 0
    assert f"_SAGECTL_COMPLETE={shell}_complete" in printed.stdout
