"""The executor's end of the process that tries out constraints."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from executor_svc.engine.vllm.constraints.trial_server import OUT_OF_MEMORY
from executor_svc.runtime.engine_port import EngineError

log = logging.getLogger(__name__)

START_LIMIT_S = 120.0  # to import the compiler on a busy machine
ANSWER_LIMIT_S = 5.0  # beyond the trial's own limits, which the kernel keeps


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a trial ended."""

    error: str | None = None  # what is wrong with the task; None: nothing, or a signal ended the trial
    signal: int | None = None

    @property
    def passed(self) -> bool:
        """Whether the task is good."""
        return self.error is None and self.signal is None

    @property
    def outlasted(self) -> bool:
        """Whether the trial reached its limit of CPU time."""
        return self.signal == signal.SIGPROF

    @property
    def out_of_memory(self) -> bool:
        """Whether the trial reached its limit of memory."""
        return self.error == OUT_OF_MEMORY


class NoTrials(Exception):
    """The trial process does not start."""


class TrialProcess:
    """Starts the process when the first trial comes, and again after it died.  Belongs to one event loop."""

    def __init__(self, command: Sequence[str], setup: Callable[[], Awaitable[Any]]) -> None:
        """Run ``command``; ``setup`` makes the first message that it gets, as JSON."""
        self._command = command
        self._setup = setup
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Ending]] = {}

    async def attempt(self, task: Any, cpu_s: float) -> Ending:
        """Try ``task`` with at most ``cpu_s`` seconds of CPU time.  Cancelling ends the trial.

        Raises NoTrials if the process does not start; EngineError if it dies meanwhile or the machine is so busy that
        the trial did not get its time.
        """
        stdin = await self._running()
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        stdin.write(_line({"number": number, "task": task, "cpu_s": cpu_s}))
        try:
            ending: Ending = await answer
        except asyncio.CancelledError:
            stdin.write(_line({"end": number}))
            raise
        finally:
            self._waiting.pop(number, None)
        if ending.signal in (signal.SIGALRM, signal.SIGKILL):
            raise EngineError("a constraint could not be tried: the machine is too busy or lacks memory")
        return ending

    async def close(self) -> None:
        """End the process and its trials."""
        process, reader = self._process, self._reader
        self._process = self._reader = None
        if process is None or reader is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.wait([reader], timeout=ANSWER_LIMIT_S)
        reader.cancel()

    async def _running(self) -> asyncio.StreamWriter:
        async with self._starting:
            if self._process is None:
                await self._start()
            assert self._process is not None
            assert self._process.stdin is not None
            return self._process.stdin

    async def _start(self) -> None:
        try:
            async with asyncio.timeout(START_LIMIT_S):
                first = _line(await self._setup())
                process = await asyncio.create_subprocess_exec(
                    *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
                )
                try:
                    await self._greet(process, first)
                except BaseException:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    raise
        except Exception as error:
            raise NoTrials(f"{type(error).__name__}: {error}") from error
        self._process = process
        self._reader = asyncio.create_task(self._read(process), name="constraint-trials")

    async def _greet(self, process: asyncio.subprocess.Process, first: bytes) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(first)
        await process.stdin.drain()
        if not await process.stdout.readline():
            raise RuntimeError(f"it ended with status {await process.wait()}")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                told = json.loads(line)
                answer = self._waiting.get(told.pop("number"))
                if answer is not None and not answer.done():
                    answer.set_result(Ending(**told))
        finally:
            self._lost(process)
            await process.wait()

    def _lost(self, process: asyncio.subprocess.Process) -> None:
        if self._process is process:
            self._process = None
            log.warning("the process that tries out constraints has died; the next constraint starts it again")
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(EngineError("the process that tries out constraints has died"))


def _line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"
