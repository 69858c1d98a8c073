"""Other routers from PyPI, each run as a process with mock workers behind it.

They live in an environment of their own, which is made when it is first needed: nothing else uses what they need.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.child import Child, child, command
from tests.bench.cpu_clock import cpu_seconds
from tests.bench.rivals import http_streams
from tests.bench.rivals.mock_worker import MODEL, READY
from tests.bench.rivals.stream_end import StreamEnd
from tests.support.free_port import free_port, free_ports

ENVIRONMENT = Path(".cache/rivals")
PACKAGES = ("smg==1.13.0", "vllm-router==0.1.17")
START_TIMEOUT_S = 60.0
SILENT = ("--log-level", "error")

COMMANDS: dict[str, tuple[str, ...]] = {
    "smg": ("smg", "launch", "--policy", "round_robin", "--model-path", MODEL, "--disable-tokenizer-autoload"),
    "vllm-router": ("vllm-router", "--policy", "round_robin"),
    "vllm-router, cache_aware": ("vllm-router", "--policy", "cache_aware"),
}


@dataclass(frozen=True, slots=True)
class Router:
    """A router that serves."""

    process: Child
    port: int
    workers: list[Child]

    def cpu_s(self) -> float:
        """CPU seconds that the router's process has used so far."""
        return cpu_seconds(self.process.pid)

    async def run(self, streams: int, tokens: int) -> list[StreamEnd]:
        """Run requests to their ends."""
        return await http_streams.run(self.port, MODEL, streams, tokens)

    def kill_worker(self) -> None:
        """End one worker at once."""
        self.workers[0].kill()


def install() -> None:
    """Make the environment with the routers, unless it is there.  Raises CalledProcessError."""
    if (ENVIRONMENT / "bin" / "smg").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *PACKAGES], check=True)


@asynccontextmanager
async def router(name: str, *, workers: int, step_s: float) -> AsyncIterator[Router]:
    """The router ``name`` of COMMANDS with ``workers`` mock workers behind it."""
    async with AsyncExitStack() as stack:
        ports = free_ports(workers)
        mocks = []
        for port in ports:
            mock = await stack.enter_async_context(
                child("mock worker", "tests.bench.rivals.mock_worker", str(port), str(step_s))
            )
            await mock.wait_for(READY, START_TIMEOUT_S)
            mocks.append(mock)
        port = free_port()
        program, *arguments = COMMANDS[name]
        urls = [f"http://127.0.0.1:{each}" for each in ports]
        process = await stack.enter_async_context(
            command(
                name,
                str(ENVIRONMENT / "bin" / program),
                *arguments,
                *("--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())),
                *(*SILENT, "--worker-urls", *urls),
            )
        )
        await _until_it_serves(process, port)
        yield Router(process, port, mocks)


async def _until_it_serves(process: Child, port: int) -> None:
    """Wait until a first request gets its tokens.  Raises ChildFailed."""
    end = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            ends = await asyncio.wait_for(http_streams.run(port, MODEL, 1, 2), 5.0)
            if ends[0].whole:
                return
        except (OSError, TimeoutError, json.JSONDecodeError):
            pass
        if time.monotonic() > end:
            raise process.failure(f"does not serve within {START_TIMEOUT_S:g} s")
        await asyncio.sleep(0.3)
