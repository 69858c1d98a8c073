"""The recipes for reading on, as programs, over a kill of the scheduler."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from executor_svc.runtime.engine_port import Sampling
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.support.simulated_answer import answer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

EXAMPLES = Path(__file__).parents[2] / "clients" / "examples"
NODE = shutil.which("node")
GO = shutil.which("go")
PROTOC = Path(__file__).parents[2] / ".venv-protoc" / "bin" / "python"
PROMPT = "It was the best of times,"
TOKENS = 400
WITHIN_S = 60.0


def left_out(why: str) -> NoReturn:
    """Skip the test; with `CI=true`, which leaves nothing out, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture
def node() -> Path:
    """The directory of the Node example with its packages, which `make test` installs."""
    room = EXAMPLES / "node"
    if NODE is None or not (room / "node_modules").is_dir():
        left_out("Node or the packages of its example are missing: make clients/examples/node/node_modules")
    return room


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """The Go example, built with Debian's modules; `make test` makes what generates its code."""
    if GO is None or not PROTOC.exists():
        left_out("Go or its packages are missing (sh .ci/packages.sh install), or the generator is (make proto-check)")
    out = tmp_path / "go"
    out.mkdir()
    places = {"OUT": str(out), "PROTOC": f"{PROTOC} -m grpc_tools.protoc", "GOCACHE": str(out / ".cache")}
    build = ["sh", str(EXAMPLES / "go" / "build.sh"), "debian"]
    subprocess.run(build, env={**os.environ, **places}, check=True, timeout=150)
    return out / "generate"


async def read_over_a_kill(fleet: FleetProcesses, *command: str) -> str:
    """Run a program that prints a request's text; kill the scheduler in the middle, twice."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        text = await asyncio.wait_for(process.stdout.read(16), WITHIN_S)
        assert text, "it streams"
        for _ in range(2):
            fleet.scheduler.kill()
            await fleet.scheduler.ended()
            fleet.scheduler.start()
            text += await asyncio.wait_for(process.stdout.read(1), WITHIN_S)
        rest, said = await asyncio.wait_for(process.communicate(), WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()
    return (text + rest).decode()


async def compare(logs: Path, simulated: list[str], state: Path, *command: str) -> None:
    """Run ``command PROMPT ADDRESS TOKENS`` over a kill and compare the text with the engine's own."""
    wanted = await answer(PROMPT, Sampling(temperature=0, max_tokens=TOKENS))
    listen = f"127.0.0.1:{free_port()}"
    async with FleetProcesses(logs, ["--state-dir", str(state)], listen=listen) as fleet:
        fleet.launch("a", simulated)
        await fleet.ready("a")
        arguments = [each.format(prompt=PROMPT, address=fleet.address, tokens=TOKENS) for each in command]
        assert await read_over_a_kill(fleet, *arguments) == wanted.text + "\n"


async def test_python_with_the_generated_stub(logs: Path, simulated: list[str], tmp_path: Path) -> None:
    program = str(EXAMPLES / "read_on.py")
    options = ("--address", "{address}", "--max-tokens", "{tokens}")
    await compare(logs, simulated, tmp_path / "state", sys.executable, program, "{prompt}", *options)


async def test_node(logs: Path, simulated: list[str], tmp_path: Path, node: Path) -> None:
    assert NODE is not None
    program = str(node / "generate.mjs")
    await compare(logs, simulated, tmp_path / "state", NODE, program, "{prompt}", "{address}", "{tokens}")


async def test_go(logs: Path, simulated: list[str], tmp_path: Path, go: Path) -> None:
    await compare(logs, simulated, tmp_path / "state", str(go), "{prompt}", "{address}", "{tokens}")
