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

from executor_svc.engine.vllm.constraints.trial_server import OUT_OF_MEMORY, wall_s
from executor_svc.runtime.engine_port import EngineError

log = logging.getLogger(__name__)

START_LIMIT_S = 120.0  # to import the compiler on a busy machine
STATUS_LIMIT_S = 1.0  # from the end of its output until it is gone
ANSWER_LIMIT_S = 30.0  # beyond the trial's own limits, which the kernel keeps: on a machine at its limit that is late
END_LIMIT_S = 60.0  # of what was killed: on a machine at its limit even that takes its time


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a trial ended."""

    error: str | None = None  # what is wrong with the task; None: nothing, or a signal ended the trial
    signal: int | None = None
    failure: str | None = None  # why there was no trial, which is not the task's fault

    @property
    def passed(self) -> bool:
        """Whether the task is good."""
        return self.error is None and self.signal is None and self.failure is None

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


class TrialProcessDied(EngineError):
    """The trial process died under a trial."""


class TrialProcess:
    """Starts the process when it is told to or the first trial comes, and again after it died.

    Belongs to one event loop.
    """

    def __init__(self, command: Sequence[str], setup: Callable[[], Awaitable[Any]]) -> None:
        """Run ``command``; ``setup`` makes the first message that it gets, as JSON, when the first trial comes."""
        self._command = command
        self._setup = setup
        self._starting = asyncio.Lock()
        self._launched: asyncio.subprocess.Process | None = None  # before the first trial
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Ending]] = {}
        self._closed = False

    async def launch(self) -> None:
        """Start the process before the first trial comes: it imports its compiler meanwhile.

        Does nothing if the process cannot be started; the first trial tries again, and says why.
        """
        with contextlib.suppress(OSError):
            self._launched = await self._spawned()

    async def attempt(self, task: Any, cpu_s: float) -> Ending:
        """Try ``task`` with at most ``cpu_s`` seconds of CPU time.  Cancelling ends the trial.

        If the process dies meanwhile, which may have nothing to do with the task, another one tries it once more.

        Raises NoTrials if the process does not start; EngineError if it dies twice or does not answer, or if the
        machine is so busy that the trial did not get its time.
        """
        try:
            return await self._attempt(task, cpu_s)
        except TrialProcessDied:
            return await self._attempt(task, cpu_s)

    async def _attempt(self, task: Any, cpu_s: float) -> Ending:
        process = await self._running()
        assert process.stdin is not None
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        process.stdin.write(_line({"number": number, "task": task, "cpu_s": cpu_s}))
        try:
            async with asyncio.timeout(wall_s(cpu_s) + ANSWER_LIMIT_S):
                ending: Ending = await answer
        except asyncio.CancelledError:
            process.stdin.write(_line({"end": number}))
            raise
        except TimeoutError:
            _kill(process)  # the next trial starts another one
            raise EngineError("a constraint could not be tried: the process that tries them does not answer") from None
        finally:
            self._waiting.pop(number, None)
        if ending.signal in (signal.SIGALRM, signal.SIGKILL):
            raise EngineError("a constraint could not be tried: the machine is too busy or lacks memory")
        if ending.failure is not None:
            raise EngineError(f"a constraint could not be tried: {ending.failure}")
        return ending

    async def close(self) -> None:
        """End the process and its trials.  There are none from then on."""
        self._closed = True
        if self._launched is not None:
            await _end(self._launched)
            self._launched = None
        process, reader = self._process, self._reader
        self._process = self._reader = None
        if process is None or reader is None:
            return
        _kill(process)
        await asyncio.wait([reader], timeout=END_LIMIT_S)
        reader.cancel()

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is None and not self._closed:
                await self._start()
            if self._process is None:
                raise EngineError("a constraint could not be tried: the engine is shut down")
            return self._process

    async def _start(self) -> None:
        try:
            async with asyncio.timeout(START_LIMIT_S):
                first = _line(await self._setup())
                process, self._launched = self._launched, None
                if process is None or process.returncode is not None:
                    process = await self._spawned()
                try:
                    await self._greet(process, first)
                except BaseException:
                    await _end(process)
                    raise
        except Exception as error:
            raise NoTrials(f"{type(error).__name__}: {error}") from error
        if self._closed:
            await _end(process)
            return
        self._process = process
        self._reader = asyncio.create_task(self._read(process), name="constraint-trials")

    async def _spawned(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a terminal's interrupt is for the executor, which drains
        )

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
        except Exception:
            log.exception("the process that tries out constraints gave an answer that makes no sense")
        finally:
            lost = self._lost(process)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STATUS_LIMIT_S)
            if lost:
                log.warning(
                    "the process that tries out constraints has died (status %s); the next constraint starts it again",
                    process.returncode,
                )
            await _end(process)

    def _lost(self, process: asyncio.subprocess.Process) -> bool:
        """Fail the trials of a process; return whether trials were still to come to it."""
        lost = self._process is process
        if lost:
            self._process = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(TrialProcessDied("the process that tries out constraints has died"))
        return lost


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the process and wait until its trials, which end with it, have closed its output too."""
    assert process.stdout is not None
    _kill(process)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_LIMIT_S):
            await process.stdout.read()
            await process.wait()


def _line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"
