"""``sagectl top`` in a terminal, in a pipe, and over the end and return of its scheduler."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sagectl.exit_status import ExitStatus
from tests.integration.system.local_fleet import LocalFleet
from tests.support.terminal import Terminal

TOP = [sys.executable, "-m", "sagectl", "top"]
LEAVES_THE_SCREEN = "\x1b[?1049l"


@pytest.fixture
async def fleet() -> AsyncIterator[LocalFleet]:
    async with LocalFleet() as made:
        await made.add("executor-1")
        yield made


def at(address: str) -> dict[str, str]:
    return {"SAGE_SCHEDULER_ADDRESS": address}


async def test_it_shows_the_fleet_as_it_changes_and_ends_with_q(fleet: LocalFleet) -> None:
    async with Terminal([*TOP, "--interval", "0.25"], at(fleet.address)) as terminal:
        await terminal.shows("executor-1       general    ready")
        await fleet.client.generate("Once", max_tokens=2, request_id="seen").result()
        await terminal.shows("seen")
        await terminal.shows("5 min: 1 finished")
        terminal.press("q")
        assert await terminal.ended() == ExitStatus.OK
        assert LEAVES_THE_SCREEN in terminal.output


async def test_keys_sort_the_instances_and_list_themselves(fleet: LocalFleet) -> None:
    await fleet.add("executor-2")
    async with Terminal([*TOP, "--interval", "0.25", "--sort", "wait"], at(fleet.address)) as terminal:
        await terminal.shows(" WAIT▾")
        terminal.press("k")
        await terminal.shows(" KV▾ ")
        terminal.press("?")
        await terminal.shows("keys: sort by i id, k KV")
        terminal.press("q")
        assert await terminal.ended() == ExitStatus.OK


@pytest.mark.parametrize(("signalled", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
async def test_signals_end_it_with_the_terminal_as_it_was(fleet: LocalFleet, signalled: int, status: int) -> None:
    async with Terminal(TOP, at(fleet.address)) as terminal:
        await terminal.shows("executor-1")
        terminal.signal(signalled)
        assert await terminal.ended() == status
        assert LEAVES_THE_SCREEN in terminal.output


async def test_it_waits_for_a_scheduler_that_restarts() -> None:
    async with LocalFleet() as before:
        await before.add("old-one")
        address = before.address
        async with Terminal([*TOP, "--interval", "0.25"], at(address)) as terminal:
            await terminal.shows("old-one")
            await asyncio.gather(*(executor.end() for executor in before.executors.values()))
            await before.stop_scheduler()
            await terminal.shows(f"reconnecting to {address}")
            assert terminal.running
            async with LocalFleet(listen=address) as after:
                await after.add("new-one")
                await terminal.shows("new-one       ", within_s=30.0)
                assert "reconnecting" not in terminal.text
                terminal.press("q")
                assert await terminal.ended() == ExitStatus.OK


async def run(*arguments: str, address: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *TOP,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **at(address)},
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("arguments", [(), ("--once",)])
async def test_in_a_pipe_it_is_one_plain_frame(fleet: LocalFleet, arguments: tuple[str, ...]) -> None:
    status, out, err = await run(*arguments, address=fleet.address)
    assert (status, err) == (0, "")
    assert out.startswith("SAGE 127.0.0.1:")
    assert "executor-1" in out
    assert "\x1b" not in out


async def test_once_with_json_is_one_line(fleet: LocalFleet) -> None:
    status, out, _ = await run("--once", "--json", address=fleet.address)
    [document] = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert document["instances"][0]["instance_id"] == "executor-1"
    assert document["latest"].keys() >= {"span_s", "accepted", "finished", "slo"}


async def test_json_is_a_line_per_snapshot_until_it_is_told_to_end(fleet: LocalFleet) -> None:
    process = await asyncio.create_subprocess_exec(
        *TOP, "--json", "--interval", "0.25", stdout=asyncio.subprocess.PIPE, env={**os.environ, **at(fleet.address)}
    )
    assert process.stdout is not None
    try:
        uptimes = [json.loads(await asyncio.wait_for(process.stdout.readline(), 20))["uptime_s"] for _ in range(3)]
        assert uptimes == sorted(set(uptimes))
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:  # it failed: nothing is left behind
            process.kill()
            await process.wait()


async def test_once_without_a_scheduler_is_an_error() -> None:
    status, out, err = await run("--once", address="127.0.0.1:1")
    assert (status, out) == (ExitStatus.UNAVAILABLE, "")
    assert "cannot reach the scheduler" in err


async def test_what_trying_again_cannot_help_ends_it(fleet: LocalFleet) -> None:
    async with Terminal([*TOP, "--tls-cert", "/nonexistent", "--tls"], at(fleet.address)) as terminal:
        assert await terminal.ended() == ExitStatus.INVALID


async def test_a_picture_of_it(fleet: LocalFleet, tmp_path: Path) -> None:
    picture = tmp_path / "top.svg"
    status, _, _ = await run("--once", "--svg", str(picture), address=fleet.address)
    assert status == 0
    drawn = picture.read_text()
    assert "executor-1" in drawn
    assert "@font-face" not in drawn, "nothing is fetched when it is looked at"
