"""``python -m fleet down``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

from fleet.commands import STOP_MARGIN_S
from fleet.sessions import kill, members
from fleet.spec import FleetSpec
from fleet.state_dir import StateDir
from fleet.status import FleetStatus

POLL_S = 0.05
KILL_TIMEOUT_S = 10.0


def down(state: StateDir) -> int:
    """Stops the fleet and waits until nothing of it is left.  Idempotent."""
    status = state.read_status()
    if status is None or not state.is_held():
        left = _sweep(status)
        print("no fleet is running" if not left else f"stopped {left} processes of a fleet without supervisor")
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(status.supervisor_pid, signal.SIGTERM)
    if not _wait(lambda: not state.is_held(), _bound_s(state)):
        print("the supervisor does not stop: killing it", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.kill(status.supervisor_pid, signal.SIGKILL)
        _wait(lambda: not state.is_held(), KILL_TIMEOUT_S)
    latest = state.read_status() or status
    _sweep(latest)
    if left_over := members(_sessions(latest)):
        print(f"error: still there: {', '.join(f'{m.pid} {m.command}' for m in left_over)}", file=sys.stderr)
        return 1
    print("stopped")
    return 0


def _sweep(status: FleetStatus | None) -> int:
    """Kills what a supervisor left; normally nothing, and its watchman does the same."""
    sessions = _sessions(status)
    found = len(members(sessions))
    if found:
        kill(sessions)
        _wait(lambda: not members(sessions), KILL_TIMEOUT_S)
    return found


def _sessions(status: FleetStatus | None) -> set[int]:
    return {each.pid for each in status.processes if each.pid is not None} if status else set()


def _bound_s(state: StateDir) -> float:
    """Executors, then the scheduler: each has its drain and a margin."""
    try:
        drain_s = state.read_spec().drain_timeout_s
    except FileNotFoundError:
        drain_s = FleetSpec().drain_timeout_s
    return 2 * (drain_s + STOP_MARGIN_S) + KILL_TIMEOUT_S


def _wait(reached: Callable[[], bool], timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True
