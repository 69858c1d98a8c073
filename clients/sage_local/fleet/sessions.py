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

_STATE, _SESSION, _START = 0, 3, 19  # fields of /proc/<pid>/stat after the command's name
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A running process of a session."""

    pid: int
    session: int
    command: str
    started: int  # in clock ticks since the machine booted


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionMark:
    """Tells a session from a later one that has got the same id."""

    session: int
    boot_id: str
    started: int  # its leader's start, in clock ticks since the machine booted

    def still_runs(self, found: Collection[Member]) -> bool:
        """Return whether the processes found under the session's id are of this session.

        The id of a session is not given out again while a process of it lives, and then a new leader has it.
        """
        if self.boot_id != boot_id():
            return False
        leader = next((member for member in found if member.pid == self.session), None)
        if leader is not None:
            return leader.started == self.started
        return all(member.started >= self.started for member in found)


def boot_id() -> str:
    """Return the id of the machine's present boot."""
    return _BOOT_ID.read_text().strip()


def started_at(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the machine booted; None if it is gone."""
    try:
        return int(_stat(pid)[_START])
    except OSError:
        return None


def running_sessions(marks: Collection[SessionMark]) -> set[int]:
    """Return the ids of the sessions that still run; those whose id another session has got are left out."""
    running = members({each.session for each in marks})
    return {
        each.session
        for each in marks
        if (found := [member for member in running if member.session == each.session]) and each.still_runs(found)
    }


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


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the command's name.  Raises OSError if the process is gone."""
    return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()


def _read(pid: int) -> Member | None:
    try:
        fields = _stat(pid)
        command = (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None  # it ended meanwhile
    if fields[_STATE] in "ZX":
        return None
    return Member(pid=pid, session=int(fields[_SESSION]), command=command.strip(), started=int(fields[_START]))
