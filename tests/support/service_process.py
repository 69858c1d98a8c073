"""One scheduler or executor as a process of its own, with everything it starts in turn."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from sage_local.fleet.bound_child import ANY
from tests.support.eventually import eventually

LOG_TAIL_LINES = 30
RESOURCE_TRACKER = "resource_tracker"  # Python's own; it leaves by itself when its last user has
FAMILY = "SAGE_TEST_FAMILY"  # environment variable that every process of one fleet inherits


class ServiceProcess:
    """``python -m module flags``; its output goes to a file.  ``start`` again after its end is a restart.

    It is bound to this process: a run of tests that is killed leaves nothing behind.  What it starts is found by its
    parent while that lives, and by the family's mark when it does not.
    """

    def __init__(
        self,
        name: str,
        module: str,
        flags: Sequence[str],
        log: Path,
        *,
        family: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        bound = (sys.executable, "-m", "sage_local.fleet.bound_child", str(os.getpid()), ANY)
        self._command = [*bound, sys.executable, "-m", module, *flags]
        self._log = log
        self._environment = {**os.environ, **(environment or {}), FAMILY: family, "PYTHONUNBUFFERED": "1"}
        self._process: subprocess.Popen[bytes] | None = None
        self._read_from = 0  # of the log: where this start's output begins
        self._descendants: set[psutil.Process] = set()
        self.starts = 0

    def start(self, *, niceness: int = 0) -> None:
        """Start it; with a ``niceness`` above 0 other processes of the machine go first."""
        assert not self.running, f"{self.name} is running"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._read_from = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as output:
            command = ["nice", "-n", str(niceness), *self._command] if niceness else self._command
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self._environment
            )
        self.starts += 1

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Negative: ended by that signal.  None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """What it has said since it was started last."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as output:
            output.seek(self._read_from)
            return output.read().decode(errors="replace")

    def descendants(self) -> set[psutil.Process]:
        """Every process it has started and that was seen alive, directly or not; engine cores above all."""
        if self.running:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._descendants.update(psutil.Process(self.pid).children(recursive=True))
        return {process for process in self._descendants if process.is_running()}

    async def said(self, pattern: str, *, within_s: float = 30.0) -> re.Match[str]:
        """Wait for a line in its log.  Raises AssertionError, with the log's end, when it ends first or is late."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.log())
            assert match is not None or self.running, f"{self.name} ended ({self.exit_status}):\n{self.tail()}"
            return match

        try:
            return await eventually(found, within_s=within_s, every_s=0.05)
        except AssertionError as error:
            raise AssertionError(f"{self.name} did not say {pattern!r}: {error}\n{self.tail()}") from None

    def tail(self) -> str:
        return "\n".join(self.log().splitlines()[-LOG_TAIL_LINES:])

    def kill(self) -> None:
        """kill -9, of this process alone: what it started has to notice by itself."""
        self.descendants()
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: it stands still until ``thaw``."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        self.descendants()
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, *, within_s: float = 30.0) -> int:
        """Its exit status, once it has ended."""
        await eventually(lambda: not self.running, within_s=within_s, what=f"{self.name} to end\n{self.tail()}\n")
        status = self.exit_status
        assert status is not None
        return status

    def reap(self) -> None:
        """Take note of its end, which has come or is about to."""
        if self._process is not None:
            self._process.wait(timeout=10)

    async def alone(self, *, within_s: float = 15.0) -> None:
        """Wait until nothing of what it started is left.  Raises AssertionError naming what is."""

        def nothing_left() -> bool:
            return not [p for p in self.descendants() if not _is_over(p)]

        left = ", ".join(map(str, self.descendants()))
        await eventually(nothing_left, within_s=within_s, what=f"{self.name}'s processes to end ({left})")


def _is_over(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE or RESOURCE_TRACKER in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return True


def of_family(family: str) -> list[psutil.Process]:
    """Processes alive that carry the family's mark: also those whose parent is gone."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(FAMILY) == family and not _is_over(process):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
