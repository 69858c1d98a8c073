"""A process that a benchmark starts, waits for and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from tests.bench.cpu_clock import cpu_seconds

LINES_KEPT = 40  # of what it said, for the error message when it fails
STOP_TIMEOUT_S = 20.0  # between asking it to end and killing it
LINE_LIMIT = 1 << 20  # bytes


class ChildFailed(Exception):
    """A child ended, or did not say what was waited for, in its time."""


class Child:
    """A Python module run as a process of its own.  Made by ``child``."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._unseen: asyncio.Queue[str | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read(), name=f"read-{name}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU seconds it has used so far."""
        return cpu_seconds(self.pid)

    async def wait_for(self, text: str, timeout_s: float) -> str:
        """The next line it prints that contains ``text``.  Raises ChildFailed."""
        try:
            async with asyncio.timeout(timeout_s):
                while (line := await self._unseen.get()) is not None:
                    if text in line:
                        return line
        except TimeoutError:
            raise self.failure(f"did not say {text!r} in {timeout_s:g} s") from None
        raise self.failure(f"ended before it said {text!r}")

    async def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    def kill(self) -> None:
        """End it at once, with SIGKILL."""
        self._process.kill()

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL when that takes too long."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._end_group()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._reading
        except TimeoutError:
            raise self.failure("left its output open after its end") from None

    def _end_group(self) -> None:
        """Kill what it started and left running: an engine whose parent was killed holds memory and its output."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _read(self) -> None:
        """What it prints must be read whether anyone waits for it or not: a full pipe would stop it."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode(errors="replace").rstrip()
            self._lines.append(text)
            self._unseen.put_nowait(text)
        self._unseen.put_nowait(None)

    def failure(self, what: str) -> ChildFailed:
        """Return the error that it ``what``, with its last words."""
        return ChildFailed("\n  ".join([f"{self.name} {what}; its last words:", *self._lines]))


def child(
    name: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> AbstractAsyncContextManager[Child]:
    """``python -m <arguments>`` for as long as the context lasts."""
    return command(name, sys.executable, "-m", *arguments, environment=environment)


@asynccontextmanager
async def command(name: str, *words: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Child]:
    """A program with its arguments, in a session of its own, for as long as the context lasts."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        limit=LINE_LIMIT,
        start_new_session=True,
    )
    started = Child(name, process)
    try:
        yield started
    finally:
        await started.stop()
