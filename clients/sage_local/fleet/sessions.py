"""Finds and kills the processes of a session: a process and everything it started, orphans included.

Each process of a fleet leads a session of its own; its children stay in that session when their parent dies.
The sessions are read from /proc, so this works on Linux only.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_STATE, _SESSION = 0, 3  # fields of /proc/<pid>/stat after the command's name


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A running process of a session."""

    pid: int
    session: int
    command: str


def members(sessions: Collection[int]) -> list[Member]:
    """Return the running processes of these sessions; zombies do not count."""
    if not sessions:
        return []
    found = (_read(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return [member for member in found if member is not None and member.session in sessions]


def kill(sessions: Collection[int]) -> None:
    """Send SIGKILL to every process of these sessions."""
    for member in members(sessions):
        try:
            os.kill(member.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _read(pid: int) -> Member | None:
    directory = Path("/proc") / str(pid)
    try:
        fields = (directory / "stat").read_text().rpartition(")")[2].split()
        command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None  # it ended meanwhile
    if fields[_STATE] in "ZX":
        return None
    return Member(pid=pid, session=int(fields[_SESSION]), command=command)
