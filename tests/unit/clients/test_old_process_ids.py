"""Process ids of an earlier fleet, which the machine may have given to somebody else since."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sage_local.fleet.down import down
from sage_local.fleet.sessions import SessionMark, boot_id, members, running_sessions, started_at
from sage_local.fleet.state_dir import StateDir
from sage_local.fleet.status import FleetPhase, FleetStatus, ProcessStatus

LEADER_WITH_A_CHILD = """
import subprocess, sys
child = subprocess.Popen(["sleep", "600"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[str]]:
    """A process that leads a session and has a child in it."""
    process = subprocess.Popen(
        [sys.executable, "-c", LEADER_WITH_A_CHILD], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    yield process
    process.stdout.close()
    for pid in (child, process.pid):
        if any(member.pid == pid for member in members({process.pid})):
            os.kill(pid, 9)
    process.wait()


def mark(process: subprocess.Popen[str]) -> SessionMark:
    started = started_at(process.pid)
    assert started is not None
    return SessionMark(session=process.pid, boot_id=boot_id(), started=started)


def test_a_session_is_known_by_its_start_and_boot(leader: subprocess.Popen[str]) -> None:
    ours = mark(leader)
    assert running_sessions([ours]) == {leader.pid}
    assert running_sessions([replace(ours, started=ours.started - 1)]) == set()
    assert running_sessions([replace(ours, boot_id="another boot")]) == set()
    assert running_sessions([]) == set()


def test_what_a_dead_leader_left_is_still_its_session(leader: subprocess.Popen[str]) -> None:
    ours = mark(leader)
    leader.kill()
    leader.wait()
    assert running_sessions([ours]) == {leader.pid}
    assert running_sessions([replace(ours, started=ours.started + 1_000_000)]) == set()


@pytest.mark.parametrize(("ticks_earlier", "is_killed"), [(0, True), (1, False)])
def test_down_kills_only_what_the_fleet_started(
    leader: subprocess.Popen[str], tmp_path: Path, ticks_earlier: int, is_killed: bool
) -> None:
    ours = mark(leader)
    state = StateDir(path=tmp_path)
    state.write_status(
        FleetStatus(
            phase=FleetPhase.READY,
            reason="",
            culprit="",
            address="a:1",
            supervisor_pid=1,
            processes=(
                ProcessStatus(
                    name="scheduler",
                    state="running",
                    pid=leader.pid,
                    restarts=0,
                    last_exit=None,
                    where="",
                    warning="",
                    started=ours.started - ticks_earlier,
                ),
            ),
            instances=(),
            boot_id=ours.boot_id,
        )
    )
    assert down(state) == 0
    assert (members({leader.pid}) == []) is is_killed
