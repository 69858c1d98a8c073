"""Starts and stops one process of a fleet, with everything that the process started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import Protocol

from sage_local.fleet.bound_child import ANY
from sage_local.fleet.command_lines import ProcessSpec
from sage_local.fleet.reaper_link import ReaperLink
from sage_local.fleet.sessions import kill, members, started_at
from sage_local.fleet.status import ProcessStatus

KILL_TIMEOUT_S = 10.0  # for killed processes to end


class Logs(Protocol):
    """Opens the logs that processes write to."""

    def open_log(self, name: str) -> int:
        """Open the log of a process and return the file descriptor, which the caller closes."""
        ...


class SupervisedProcess:
    """A process in a session of its own; it can be started again after it ended."""

    def __init__(self, spec: ProcessSpec, logs: Logs, reaper: ReaperLink) -> None:
        self.spec = spec
        self._logs = logs
        self._reaper = reaper
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[None] | None = None
        self._started: int | None = None
        self.stopping = False  # whether it ends because it was asked to, while the others go on
        self.starts = 0
        self.last_exit: int | None = None

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process; its output goes to its log."""
        # If the caller is cancelled now, ``stop`` must still find the process that is being created.
        self._starting = asyncio.create_task(self._start(), name=f"start-{self.spec.name}")
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        log = self._logs.open_log(self.spec.name)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sage_local.fleet.bound_child", str(os.getpid()), self.spec.cores or ANY),
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
        self._started = started_at(self._process.pid)
        self._reaper.watch(self._process.pid)

    async def ended(self) -> int:
        """Wait for the process to end, kill the processes that it left, and return its exit status.

        A negative status is a signal's number.
        """
        assert self._process is not None
        self.last_exit = await self._process.wait()
        await self._sweep(self._process.pid)
        return self.last_exit

    async def stop(self) -> None:
        """Send SIGTERM, after the timeout SIGKILL to the whole session, and wait until no process of it is left."""
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
        """Send SIGKILL to the whole session; ``stop`` or ``ended`` then returns soon."""
        if self._process is not None:
            kill({self._process.pid})

    def status(self) -> ProcessStatus:
        """Return the status of the latest start."""
        return ProcessStatus(
            name=self.spec.name,
            state="ended" if not self.running else "stopping" if self.stopping else "running",
            pid=self._process.pid if self._process else None,
            restarts=max(0, self.starts - 1),
            last_exit=self.last_exit,
            where=self.spec.where,
            warning=self.spec.warning,
            started=self._started,
        )

    async def _sweep(self, session: int) -> None:
        end = asyncio.get_running_loop().time() + KILL_TIMEOUT_S
        while members({session}) and asyncio.get_running_loop().time() < end:
            kill({session})
            await asyncio.sleep(0.02)
        if not members({session}):
            self._reaper.forget(session)
