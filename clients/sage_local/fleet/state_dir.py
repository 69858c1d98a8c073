"""The directory that holds a fleet's files: lock, spec, status and logs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from sage_local.fleet.spec import FleetSpec
from sage_local.fleet.status import FleetStatus

LOG_LIMIT_BYTES = 10 * 1024 * 1024
"""A larger log is renamed to ``.log.1`` when its process starts again; one older log is kept."""

TAIL_BYTES = 64 * 1024


class AlreadyRunning(Exception):
    """Another supervisor holds the directory's lock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StateDir:
    """A fleet's directory: ``SAGE_HOME``, or ``.sage`` in the current directory."""

    path: Path

    @classmethod
    def default(cls) -> StateDir:
        """Return the directory that the environment names."""
        return cls(path=Path(os.environ.get("SAGE_HOME") or ".sage").resolve())

    @contextmanager
    def held(self, *, tries: int = 10) -> Iterator[None]:
        """Hold the directory's lock.  The kernel releases it when this process ends for whatever reason.

        Several ``tries`` are needed because ``is_held`` also takes the lock for a moment.

        Raises:
            AlreadyRunning: another process holds the lock.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / "fleet.lock", "a") as lock:
            if not _lock(lock, tries=tries):
                raise AlreadyRunning(f"a fleet is already running in {self.path}")
            yield

    def is_held(self) -> bool:
        """Return whether a supervisor is running on this directory."""
        if not (self.path / "fleet.lock").exists():
            return False
        try:
            with self.held(tries=1):
                return False
        except AlreadyRunning:
            return True

    def write_spec(self, spec: FleetSpec) -> None:
        """Write the spec for the supervisor to read."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "spec.json").write_text(spec.to_json())

    def read_spec(self) -> FleetSpec:
        """Read the spec; raise FileNotFoundError if there is none."""
        return FleetSpec.from_json((self.path / "spec.json").read_text())

    def write_status(self, status: FleetStatus) -> None:
        """Replace the status atomically."""
        scratch = self.path / "fleet.json.new"
        scratch.write_text(status.to_json())
        scratch.replace(self.path / "fleet.json")

    def read_status(self) -> FleetStatus | None:
        """Read the last status that a supervisor wrote; None if there is none."""
        try:
            return FleetStatus.from_json((self.path / "fleet.json").read_text())
        except FileNotFoundError:
            return None

    def forget_status(self) -> None:
        """Remove the status of an earlier fleet."""
        (self.path / "fleet.json").unlink(missing_ok=True)

    @property
    def not_running(self) -> str:
        """The line for a directory in which no fleet is running."""
        return f"no fleet is running in {self.path}; to look in another folder, set SAGE_HOME"

    def log(self, name: str) -> Path:
        """Return the path of a process's log."""
        return self.path / "logs" / f"{name}.log"

    def open_log(self, name: str) -> int:
        """Open a process's log for appending, mark the new start with a line, and return the file descriptor."""
        path = self.log(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
            path.replace(path.with_suffix(".log.1"))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        with contextlib.suppress(OSError):  # a full disk keeps no process from starting
            os.write(descriptor, f"--- start at {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        return descriptor

    def log_tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines of the latest start that wrote any; empty if there is no log."""
        try:
            with open(self.log(name), "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        starts = [each.splitlines()[1:] for each in text.split("--- start at ")]
        latest = next((each for each in reversed(starts) if each), [])
        return "\n".join(latest[-lines:])


def _lock(file: TextIO, *, tries: int) -> bool:
    for attempt in range(tries):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if attempt + 1 < tries:
                time.sleep(0.05)
    return False
