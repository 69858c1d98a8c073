"""Several processes of one gateway, which share its port."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

log = logging.getLogger(__name__)

POLL_S = 0.2
KILL_MARGIN_S = 10.0
"""Seconds beyond the grace after which a worker that does not end is killed."""

PARENT_POLL_S = 1.0
"""Seconds between two looks of a worker at whether the process that started it still runs."""

WORKER_VARIABLE = "SAGE_GATEWAY_WORKER"
"""The environment variable that tells a process that it is a worker, by its number."""

PARENT_VARIABLE = "SAGE_GATEWAY_PARENT"
"""The environment variable with the process id of the one that started a worker."""


def worker_number() -> int | None:
    """Return which worker this process is; None if it is none."""
    value = os.environ.get(WORKER_VARIABLE, "")
    return int(value) if value.isdecimal() else None


async def parent_ended(poll_s: float = PARENT_POLL_S) -> None:
    """Return once the process that started this worker has ended, killed perhaps; never in a process that is none."""
    parent = os.environ.get(PARENT_VARIABLE, "")
    while not parent.isdecimal() or os.getppid() == int(parent):
        await asyncio.sleep(poll_s)


class WorkerProcesses:
    """Starts workers and waits for their end.

    The end of one ends all: a service must not go on with a part missing.
    """

    def __init__(self, command: Sequence[str], count: int, *, grace_s: float) -> None:
        self._command = list(command)
        self._count = count
        self._grace_s = grace_s
        self._stopping = False
        self._running: list[subprocess.Popen[bytes]] = []

    def run(self) -> int:
        """Run the workers until SIGTERM or SIGINT, or until one ends; return 0, or the status of the one that did."""
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._stop)
        for number in range(self._count):
            environment = os.environ | {WORKER_VARIABLE: str(number), PARENT_VARIABLE: str(os.getpid())}
            self._running.append(subprocess.Popen(self._command, env=environment))
        status = self._first_end()
        self._end_all()
        return status

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _first_end(self) -> int:
        while not self._stopping:
            for number, worker in enumerate(self._running):
                if (status := worker.poll()) is not None:
                    log.error("worker %d ended with status %d; the others are stopped", number, status)
                    return status or 1
            time.sleep(POLL_S)
        return 0

    def _end_all(self) -> None:
        for worker in self._running:
            worker.send_signal(signal.SIGTERM)
        end = time.monotonic() + self._grace_s + KILL_MARGIN_S
        for worker in self._running:
            try:
                worker.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("worker %d did not end in time and is killed", worker.pid)
                worker.kill()
                worker.wait()


def worker_command() -> list[str]:
    """Return the command line of a worker: this process's own."""
    return [sys.executable, "-m", "sage_gateway", *sys.argv[1:]]
