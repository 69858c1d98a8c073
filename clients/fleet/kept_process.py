"""One process: started bound to this one, ended with everything it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

from fleet.bound_child import ANY
from fleet.commands import ProcessSpec
from fleet.guard import Guard
from fleet.sessions import kill, members
from fleet.state_dir import StateDir
from fleet.status import ProcessStatus

KILL_TIMEOUT_S = 10.0  # for the kernel to end a killed process


class KeptProcess:
    """Leads a session of its own.  One at a time; may be started again after its end."""

    def __init__(self, spec: ProcessSpec, state: StateDir, guard: Guard) -> None:
        self.spec = spec
        self._state = state
        self._guard = guard
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[None] | None = None
        self.starts = 0
        self.last_exit: int | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        # A caller that is cancelled meanwhile must not lose sight of a process that is just coming to life.
        self._starting = asyncio.create_task(self._start(), name=f"start-{self.spec.name}")
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        log = self._state.open_log(self.spec.name)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "fleet.bound_child", str(os.getpid()), self.spec.cores or ANY),
                *self.spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.spec.environment,
                start_new_session=True,
            )
        finally:
            os.close(log)
        self.starts += 1
        self._guard.watch(self._process.pid)

    async def ended(self) -> int:
        """Waits for its end and sweeps up what it left.  The exit status; negative: the signal."""
        assert self._process is not None
        self.last_exit = await self._process.wait()
        await self._sweep(self._process.pid)
        return self.last_exit

    async def stop(self) -> None:
        """SIGTERM, a bound, then SIGKILL to its whole session.  Returns when nothing of it is left."""
        if self._starting is not None:
            await asyncio.wait({self._starting})
        if self._process is None:
            return
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(self.spec.stop_timeout_s):
                    await self._process.wait()
            except TimeoutError:
                kill({self._process.pid})
        await self.ended()

    def kill(self) -> None:
        """Ends it at once; ``stop`` or ``ended`` then returns soon."""
        if self._process is not None:
            kill({self._process.pid})

    def status(self) -> ProcessStatus:
        return ProcessStatus(
            name=self.spec.name,
            state="running" if self.running else "ended",
            pid=self._process.pid if self._process else None,
            restarts=max(0, self.starts - 1),
            last_exit=self.last_exit,
            where=self.spec.where,
            warning=self.spec.warning,
        )

    async def _sweep(self, session: int) -> None:
        end = asyncio.get_running_loop().time() + KILL_TIMEOUT_S
        while members({session}) and asyncio.get_running_loop().time() < end:
            kill({session})
            await asyncio.sleep(0.02)
        if not members({session}):
            self._guard.forget(session)
