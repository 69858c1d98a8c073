"""``python -m scheduler_svc`` as whoever starts it sees it: exit status, one clear line, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from scheduler_svc.config import ENV_PREFIX
from tests.support.eventually import eventually

WITHIN_S = 30.0


def environment(**variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(ENV_PREFIX)}
    return {**inherited, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **variables}


@asynccontextmanager
async def started(*arguments: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**variables),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ends(*arguments: str, **variables: str) -> tuple[int | None, str]:
    """Exit status and what was said."""
    async with started("-m", "scheduler_svc", *arguments, **variables) as process, asyncio.timeout(WITHIN_S):
        _, said = await process.communicate()
        return process.returncode, said.decode()


async def test_a_bad_configuration_is_one_line_and_exit_status_2() -> None:
    """Whoever notices it: the settings, the policies, the server."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = {
            "listen-to": ends("--listen-to=x"),
            "recording.file: cannot write '/nowhere/log'": ends("--record=/nowhere/log", "--listen=127.0.0.1:0"),
            "'best'": ends("--policy=best", "--listen=127.0.0.1:0"),
            'invalid connection option "bogus"': ends(
                "--journal.url=postgresql://sage@127.0.0.1:1/sage?bogus=1", "--listen=127.0.0.1:0"
            ),
            f"cannot bind 127.0.0.1:{port}": ends(f"--listen=127.0.0.1:{port}"),
        }
        found = dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))
    for key, (status, said) in found.items():
        assert status == 2, said
        [line] = [one for one in said.splitlines() if one.startswith("sage-scheduler: ")]
        assert line.startswith("sage-scheduler: configuration: ")
        assert key in line
        assert "Traceback" not in said


async def until_it_says(process: asyncio.subprocess.Process, pattern: str) -> re.Match[str]:
    assert process.stderr is not None
    async with asyncio.timeout(WITHIN_S):
        while line := (await process.stderr.readline()).decode():
            if found := re.search(pattern, line):
                return found
    raise AssertionError(f"it ended without saying {pattern}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    async with started("-m", "scheduler_svc", "--listen=127.0.0.1:0", "--policy=fifo") as process:
        port = int((await until_it_says(process, r"serving on .*port (\d+)"))[1])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        process.send_signal(number)
        async with asyncio.timeout(WITHIN_S):
            assert await process.wait() == 0


async def test_sighup_has_keys_read_again_and_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text("")
    flags = ("--listen=127.0.0.1:0", "--policy=fifo", f"--access.keys-file={path}")
    async with started("-m", "scheduler_svc", *flags) as process:
        await until_it_says(process, "serving on")
        process.send_signal(signal.SIGHUP)
        await until_it_says(process, r"keys\.toml holds 0 keys")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WITHIN_S):
            assert await process.wait() == 0


async def test_sighup_while_it_starts_ends_nothing() -> None:
    async with started("-m", "scheduler_svc", "--listen=127.0.0.1:0", "--policy=fifo") as process:
        await eventually(lambda: ignores_hangups(process.pid), within_s=WITHIN_S)
        serving = asyncio.create_task(until_it_says(process, "serving on"))
        while not serving.done():
            process.send_signal(signal.SIGHUP)
            await asyncio.wait({serving}, timeout=0.02)
        await serving
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WITHIN_S):
            assert await process.wait() == 0


def ignores_hangups(pid: int) -> bool:
    """Whether a process ignores SIGHUP: for a moment after its start none does, and a second later it handles it."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigIgn"], 16) >> (signal.SIGHUP - 1) & 1)


async def test_files_of_credentials_that_are_of_no_use_are_a_bad_configuration(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("{")
    asked = {
        "access: cannot read": ends(f"--access.keys-file={tmp_path}/none", "--listen=127.0.0.1:0"),
        "is not TOML": ends(f"--access.keys-file={tmp_path}/bad", "--listen=127.0.0.1:0"),
        "is not JSON": ends(
            f"--access.jwt.jwks-file={tmp_path}/bad", "--access.jwt.audience=a", "--listen=127.0.0.1:0"
        ),
        "are not a certificate and its key": ends(
            f"--tls.certificate={tmp_path}/bad", f"--tls.private-key={tmp_path}/bad", "--listen=127.0.0.1:0"
        ),
    }
    found = dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))
    for said, (status, output) in found.items():
        assert status == 2, output
        [line] = [one for one in output.splitlines() if one.startswith("sage-scheduler: ")]
        assert said in line


async def test_a_background_task_that_dies_ends_the_service_with_exit_status_1() -> None:
    program = """
import sys
from scheduler_svc.control.instances.watchdog import Watchdog
from scheduler_svc.__main__ import main

def check(self):
    raise RuntimeError("out of luck")

Watchdog.check = check
sys.argv = ["scheduler", "--listen=127.0.0.1:0"]
main()
"""
    async with started("-c", program) as process:
        await until_it_says(process, "background task 'watchdog' failed: RuntimeError\\('out of luck'\\)")
        async with asyncio.timeout(WITHIN_S):
            await process.communicate()
        assert process.returncode == 1
