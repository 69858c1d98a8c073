"""``python -m fleet up``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

from fleet.commands import executor_names, served_name_of
from fleet.down import down
from fleet.model_files import ModelNotMade, make_model_if_needed
from fleet.ports import why_not_free
from fleet.progress import ProgressLines
from fleet.spec import FleetSpec
from fleet.state_dir import AlreadyRunning, StateDir
from fleet.status import FleetPhase, FleetStatus
from fleet.supervise import supervise

POLL_S = 0.1
SUPERVISOR_MARGIN_S = 60.0  # a supervisor bounds its start itself; this catches one that is stuck


def up(spec: FleetSpec, state: StateDir, *, foreground: bool) -> int:
    """Starts a fleet; returns 0 once all instances are READY (in the foreground: once it was stopped)."""
    if state.is_held():
        return _fail(f"a fleet is running already in {state.path}; `python -m fleet down` stops it")
    if why := why_not_free(spec.address):
        return _fail(f"{spec.address} cannot be listened on: {why}")
    try:
        make_model_if_needed(spec)
        state.forget_status()
        return _foreground(spec, state) if foreground else _background(spec, state)
    except (ModelNotMade, AlreadyRunning) as error:
        return _fail(str(error))


def _foreground(spec: FleetSpec, state: StateDir) -> int:
    lines = ProgressLines(_say)
    announced = False

    def show(status: FleetStatus) -> None:
        nonlocal announced
        lines.show(status)
        if status.phase is FleetPhase.READY and not announced:
            announced = True
            _announce(spec)

    result = supervise(spec, state, show)
    status = state.read_status()
    if status is not None and status.phase is FleetPhase.FAILED:
        return _explain(status, state)
    return result


def _background(spec: FleetSpec, state: StateDir) -> int:
    state.write_spec(spec)
    log = state.open_log("supervisor")
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "fleet", "supervise"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=os.environ | {"SAGE_HOME": str(state.path)},
        start_new_session=True,
    )
    os.close(log)
    try:
        return _follow(supervisor, spec, state)
    except KeyboardInterrupt:
        _say("interrupted: stopping what was started")
        with contextlib.suppress(ProcessLookupError):
            supervisor.send_signal(signal.SIGTERM)
        down(state)
        return 130


def _follow(supervisor: subprocess.Popen[bytes], spec: FleetSpec, state: StateDir) -> int:
    lines = ProgressLines(_say)
    end = time.monotonic() + spec.start_timeout_s + SUPERVISOR_MARGIN_S
    while time.monotonic() < end:
        ended = supervisor.poll() is not None  # asked first: the status read next is then its last
        status = state.read_status()
        if status is not None:
            lines.show(status)
            if status.phase is FleetPhase.READY and not ended:
                _announce(spec)
                return 0
        if ended:
            return _explain(status, state)
        time.sleep(POLL_S)
    down(state)
    return _fail("the supervisor did not say how the start went; it is stopped")


def _explain(status: FleetStatus | None, state: StateDir) -> int:
    """What a fleet that did not come up leaves to say."""
    culprit = (status.culprit if status else "") or "supervisor"
    if tail := state.log_tail(culprit):
        _say(f"the last lines of {state.log(culprit)}:")
        _say("  " + tail.replace("\n", "\n  "))
    return _fail(status.reason if status and status.reason else "the supervisor ended while the fleet started")


def _announce(spec: FleetSpec) -> None:
    flag = "" if spec.address == FleetSpec().address else f" --address {spec.address}"
    _say(f"ready: {spec.executors} x {served_name_of(spec)} ({spec.engine}) behind {spec.address}")
    if spec.splits:
        roles = ", ".join(f"{name} {role}" for name, role in zip(executor_names(spec), spec.roles, strict=False))
        _say(f"prefill/decode separation: {roles}; `sagectl pd get{flag}` shows who hands over to whom")
    _say(f'try: sagectl generate "Once upon a time" --max-tokens 32 -v{flag}')


def _say(line: str) -> None:
    print(line, flush=True)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return 1
