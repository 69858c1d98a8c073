"""``sagectl up``: starts a supervisor process and waits until the fleet is READY.

``supervisor`` starts the fleet's processes.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace

from sage_local.fleet import postgres
from sage_local.fleet.command_lines import embedding_name_of, executor_names, served_name_of
from sage_local.fleet.down import down
from sage_local.fleet.http_gateway import why_no_gateway
from sage_local.fleet.model_files import ModelNotMade, make_model_if_needed
from sage_local.fleet.ports import why_not_free
from sage_local.fleet.progress import ProgressLines
from sage_local.fleet.requirements import NotInstalled, require_installed
from sage_local.fleet.sagectl_command import sagectl_command
from sage_local.fleet.spec import FleetSpec
from sage_local.fleet.state_dir import AlreadyRunning, StateDir
from sage_local.fleet.status import FleetPhase, FleetStatus
from sage_local.fleet.supervise import supervise

POLL_S = 0.1
SUPERVISOR_MARGIN_S = 60.0  # added to the start timeout, which the supervisor keeps itself unless it is stuck

METRICS_FLAG = "--telemetry.metrics-listen="
"""What a further argument of the scheduler begins with that serves its metrics to Prometheus."""

FAILED, NOT_INSTALLED, INTERRUPTED = 1, 2, 130
"""Exit statuses, as ``sagectl --help`` documents them."""


def up(spec: FleetSpec, state: StateDir, *, foreground: bool) -> int:
    """Start a fleet and print its progress.

    Returns:
        0 once all instances are READY (in the foreground: once the fleet was stopped), 1 if the fleet could not
        start, 2 if a service's packages are not installed, 130 if interrupted.
    """
    if state.is_held():
        return _fail(f"a fleet is already running in {state.path}; stop it with: {sagectl_command('down')}")
    for address in spec.addresses.split(","):
        if why := why_not_free(address):
            return _fail(f"cannot listen on {address}: {why}")
    if spec.standby and (why := postgres.why_not(state.path / "postgres")):
        return _fail(why, NOT_INSTALLED)
    try:
        require_installed(spec.engine)
        spec = _with_gateway_if_possible(spec)
        make_model_if_needed(spec)
        state.forget_status()
        return _foreground(spec, state) if foreground else _background(spec, state)
    except NotInstalled as error:
        return _fail(str(error), NOT_INSTALLED)
    except (ModelNotMade, AlreadyRunning) as error:
        return _fail(str(error))


def _with_gateway_if_possible(spec: FleetSpec) -> FleetSpec:
    """Return the spec, without an HTTP gateway if none can run here, which is printed."""
    if spec.http and (why := why_no_gateway(spec.http)):
        _say(f"HTTP is off: {why}")
        return replace(spec, http="")
    return spec


def _foreground(spec: FleetSpec, state: StateDir) -> int:
    lines = ProgressLines(_say)
    announced = False

    def show(status: FleetStatus) -> None:
        nonlocal announced
        lines.show(status)
        if status.phase is FleetPhase.READY and not announced:
            announced = True
            _announce(spec, status, state, how_to_stop="press Ctrl-C")

    result = supervise(spec, state, show)
    status = state.read_status()
    if status is not None and status.phase is FleetPhase.FAILED:
        return _explain(status, state)
    return result


def _background(spec: FleetSpec, state: StateDir) -> int:
    state.write_spec(spec)
    log = state.open_log("supervisor")
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "sage_local.fleet"],
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
        _say("interrupted; stopping the processes that were started")
        with contextlib.suppress(ProcessLookupError):
            supervisor.send_signal(signal.SIGTERM)
        down(state)
        return INTERRUPTED


def _follow(supervisor: subprocess.Popen[bytes], spec: FleetSpec, state: StateDir) -> int:
    lines = ProgressLines(_say)
    end = time.monotonic() + spec.start_timeout_s + SUPERVISOR_MARGIN_S
    while time.monotonic() < end:
        ended = supervisor.poll() is not None  # polled first, so that the status of an ended supervisor is its last one
        status = state.read_status()
        if status is not None:
            lines.show(status)
            if status.phase is FleetPhase.READY and not ended:
                _announce(spec, status, state, how_to_stop=sagectl_command("down"))
                return 0
        if ended:
            return _explain(status, state)
        time.sleep(POLL_S)
    down(state)
    return _fail("the supervisor did not report a start or a failure in time; it was stopped")


def _explain(status: FleetStatus | None, state: StateDir) -> int:
    """Print why the fleet did not start, with the last lines of the log of the process at fault."""
    culprit = (status.culprit if status else "") or "supervisor"
    if tail := state.log_tail(culprit):
        _say(f"the last lines of {state.log(culprit)}:")
        _say("  " + tail.replace("\n", "\n  "))
    return _fail(status.reason if status and status.reason else "the supervisor ended while the fleet started")


def _announce(spec: FleetSpec, status: FleetStatus, state: StateDir, *, how_to_stop: str) -> None:
    executors = f"{spec.executors} executor{'s' if spec.executors != 1 else ''}"
    _say(f"ready: model {served_name_of(spec)} on {executors} with the {spec.engine} engine")
    for what, where in listening(spec).items():
        _say(f"  {what:<17} {where}")
    _say(f"  {'logs':<17} {state.path / 'logs'}")
    if spec.splits:
        roles = ", ".join(f"{name} {role}" for name, role in zip(executor_names(spec), spec.roles, strict=False))
        _say(f"prefill/decode separation: {roles}")
    if spec.forms_pair:
        pairs = sagectl_command("pd get", address=spec.addresses)
        if status.pair_usable:
            _say(f"a pair of them can hand over; all pairs: {pairs}")
        else:
            _say(f"their pair still warms up: until it is usable, requests run whole; to see it: {pairs}")
    _say(f"to watch the fleet: {sagectl_command('top', address=spec.addresses)}")
    _say(f"to stop the fleet: {how_to_stop}")
    _say("to send a request:")
    for arguments in first_requests(spec):
        _say(sagectl_command(arguments, address=spec.addresses))
    if spec.standby:
        _say("to see which scheduler leads:")
        _say(sagectl_command("doctor", address=spec.addresses))


def listening(spec: FleetSpec) -> dict[str, str]:
    """Return where each service of a fleet listens, by what it is; why not, where it does not."""
    found = {"scheduler, gRPC": spec.address}
    if spec.standby:
        found["second scheduler"] = spec.standby_address
    found["OpenAI's API"] = f"http://{spec.http}/v1" if spec.http else "off: no HTTP gateway runs"
    pages = [each.removeprefix(METRICS_FLAG) for each in spec.scheduler_arguments if each.startswith(METRICS_FLAG)]
    found["metrics"] = f"http://{pages[-1]}/metrics" if pages else f"off; --scheduler-arg {METRICS_FLAG}127.0.0.1:9464"
    found["dashboards"] = "none; Grafana and Jaeger are in docker/compose.yaml"
    return found


def first_requests(spec: FleetSpec) -> list[str]:
    """Return `sagectl` commands to try, one for each model; with several, a request has to name its own."""
    embeds = "embedding" in spec.roles
    generates = spec.executors > len(spec.roles) or set(spec.roles) != {"embedding"}
    named = f" --model {shlex.quote(served_name_of(spec))}" if embeds and generates else ""
    generate = [f'generate "Once upon a time" --max-tokens 32 -v{named}'] if generates else []
    embed = [f'embed "Once upon a time" --model {shlex.quote(embedding_name_of(spec))}'] if embeds else []
    return generate + embed


def _say(line: str) -> None:
    print(line, flush=True)


def _fail(message: str, status: int = FAILED) -> int:
    print(f"error: {message}", file=sys.stderr, flush=True)
    return status
