"""Finds and ends the processes of a session: a process and everything it started, orphans included.

Each process of a fleet leads a session of its own, which its children cannot leave by dying in the wrong order.
Read from /proc: Linux only.
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
    """A process that lives."""

    pid: int
    session: int
    command: str


def members(sessions: Collection[int]) -> list[Member]:
    """Every live process of these sessions; zombies are dead."""
    if not sessions:
        return []
    found = (_read(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return [member for member in found if member is not None and member.session in sessions]


def kill(sessions: Collection[int]) -> None:
    """SIGKILL to each of them."""
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
