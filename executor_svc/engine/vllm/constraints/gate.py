"""Decides when a constraint may go to the engine, and refuses those that take too much to compile."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from enum import Enum
from hashlib import sha256
from typing import Any

from executor_svc.engine.structured import field_of
from executor_svc.engine.vllm.constraints.trial_process import Ending, NoTrials
from executor_svc.engine.vllm.constraints.trial_server import MEMORY_BYTES
from executor_svc.runtime.engine_port import InvalidRequestError, StructuredOutput

log = logging.getLogger(__name__)

QUICK_CPU_S = 0.1  # CPU time of a trial after which its constraint counts as slow
QUICK_TRIALS = max(2, min(8, (os.cpu_count() or 1) // 2))  # quick trials at once
REMEMBERED = 1024  # constraints whose outcome is known

Trial = Callable[[Any, float], Awaitable[Ending]]
"""Tries a task with so many seconds of CPU time; see ``TrialProcess.attempt``."""


class Known(Enum):
    """What is known of a constraint that passed."""

    QUICK = "quick"
    SLOW = "slow"  # the engine has not compiled it yet
    COMPILED = "compiled"  # slow, and the engine keeps the result


class Turn:
    """A constraint's leave to be compiled by the engine.  ``end`` it when the engine has, or when the request ends."""

    def __init__(self, on_end: Callable[[bool], None] | None = None) -> None:
        self._on_end = on_end

    def end(self, *, compiled: bool) -> None:
        """Make room for the next slow constraint.  ``compiled``: the engine has compiled this one.  Idempotent."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(compiled)


class ConstraintGate:
    """Tries each new constraint, quick ones beside each other and slow ones one at a time."""

    def __init__(
        self, trial: Trial, task_of: Callable[[StructuredOutput], Any], limit_s: float, quick_s: float = QUICK_CPU_S
    ) -> None:
        """``task_of`` makes of a constraint what ``trial`` takes; None if it needs no trial.  Both may raise NoTrials.

        ``limit_s``: most seconds of CPU time that a constraint may take.
        """
        self._trial = trial
        self._task_of = task_of
        self._limit_s = limit_s
        self._quick_s = min(quick_s, limit_s)
        self._quick = asyncio.Semaphore(QUICK_TRIALS)
        self._slow = asyncio.Lock()
        self._known: OrderedDict[bytes, Known | str] = OrderedDict()  # a text: why it is refused
        self._unable = False

    async def admit(self, constraint: StructuredOutput) -> Turn:
        """Wait until the engine may compile ``constraint``.

        Raises InvalidRequestError if it takes too long, takes too much memory or is broken; EngineError if it could
        not be tried.
        """
        if self._unable:
            return Turn()
        try:
            return await self._tried(constraint)
        except NoTrials as error:
            if not self._unable:
                log.warning("constraints are no longer tried before the engine compiles them: %s", error)
            self._unable = True
            return Turn()

    async def _tried(self, constraint: StructuredOutput) -> Turn:
        task = self._task_of(constraint)
        if task is None:
            return Turn()
        digest = sha256(f"{constraint.kind.value}:{constraint.value}".encode("utf-8", "surrogatepass")).digest()
        if self._lookup(digest, constraint) is None:
            await self._try_quickly(digest, task, constraint)
        if self._lookup(digest, constraint) is Known.SLOW:
            return await self._slow_turn(digest, task, constraint)
        return Turn()

    def _lookup(self, digest: bytes, constraint: StructuredOutput) -> Known | None:
        known = self._known.get(digest)
        if isinstance(known, str):
            raise InvalidRequestError(field_of(constraint.kind), known)
        return known

    async def _try_quickly(self, digest: bytes, task: Any, constraint: StructuredOutput) -> None:
        async with self._quick:
            if self._lookup(digest, constraint) is not None:  # one that waited before it was the same
                return
            ending = await self._trial(task, self._quick_s)
            self._note(digest, Known.SLOW if ending.outlasted else self._outcome(ending, Known.QUICK))

    async def _slow_turn(self, digest: bytes, task: Any, constraint: StructuredOutput) -> Turn:
        await self._slow.acquire()
        try:
            if self._lookup(digest, constraint) is not Known.COMPILED:
                outcome = self._outcome(await self._trial(task, self._limit_s), Known.SLOW)
                self._note(digest, outcome)
            if self._lookup(digest, constraint) is Known.COMPILED:
                self._slow.release()
                return Turn()
        except BaseException:
            self._slow.release()
            raise
        return Turn(lambda compiled: self._leave_slow(digest, compiled=compiled))

    def _leave_slow(self, digest: bytes, *, compiled: bool) -> None:
        if compiled:
            self._note(digest, Known.COMPILED)
        self._slow.release()

    def _note(self, digest: bytes, outcome: Known | str) -> None:
        self._known[digest] = outcome
        self._known.move_to_end(digest)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _outcome(self, ending: Ending, passed: Known) -> Known | str:
        if ending.passed:
            return passed
        if ending.outlasted:
            return f"compiling it takes more than {self._limit_s:g} s of CPU time (vllm.constraint_compile_limit_s)"
        if ending.out_of_memory:
            return f"compiling it takes more than {MEMORY_BYTES >> 30} GiB of memory"
        if ending.signal is not None:
            return f"compiling it ends the compiler with {signal.Signals(ending.signal).name}"
        return ending.error or "it does not compile"
