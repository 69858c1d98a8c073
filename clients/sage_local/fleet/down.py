"""``sagectl down``: stops the fleet."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

from sage_local.fleet.command_lines import STOP_MARGIN_S
from sage_local.fleet.sessions import kill, members, running_sessions
from sage_local.fleet.spec import FleetSpec
from sage_local.fleet.state_dir import StateDir
from sage_local.fleet.status import FleetStatus

POLL_S = 0.05
KILL_TIMEOUT_S = 10.0


class NotStopped(Exception):
    """Processes of a fleet could not be ended; the message names them."""


def down(state: StateDir) -> int:
    """Stop the fleet, wait until none of its processes is left, and print how it went; idempotent.

    Returns:
        0 if none is left, 1 if a process could not be killed.
    """
    try:
        print(stop_fleet(state))
    except NotStopped as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def stop_fleet(state: StateDir) -> str:
    """Stop the fleet and wait until none of its processes is left; idempotent.

    Returns:
        What was done, in words.

    Raises:
        NotStopped: a process could not be killed.
    """
    status = state.read_status()
    if status is None or not state.is_held():
        left = _sweep(status)
        return state.not_running if not left else f"killed {left} processes that a dead supervisor left behind"
    with contextlib.suppress(ProcessLookupError):
        os.kill(status.supervisor_pid, signal.SIGTERM)
    if not _wait(lambda: not state.is_held(), _bound_s(status)):
        print("the supervisor did not stop in time; killing it", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.kill(status.supervisor_pid, signal.SIGKILL)
        _wait(lambda: not state.is_held(), KILL_TIMEOUT_S)
    latest = state.read_status() or status
    _sweep(latest)
    if left_over := members(_sessions(latest)):
        raise NotStopped(f"processes still running: {', '.join(f'{m.pid} {m.command}' for m in left_over)}")
    return "stopped"


def _sweep(status: FleetStatus | None) -> int:
    """Kill the processes that a supervisor left behind, normally none; return their number."""
    sessions = _sessions(status)
    found = len(members(sessions))
    if found:
        kill(sessions)
        _wait(lambda: not members(sessions), KILL_TIMEOUT_S)
    return found


def _sessions(status: FleetStatus | None) -> set[int]:
    return running_sessions(status.sessions()) if status else set()


def _bound_s(status: FleetStatus) -> float:
    """Return the seconds that a supervisor may take to drain and stop the executors, then the scheduler."""
    slowest_s = status.stop_timeout_s or FleetSpec().drain_timeout_s + STOP_MARGIN_S
    return 2 * slowest_s + KILL_TIMEOUT_S


def _wait(reached: Callable[[], bool], timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True
