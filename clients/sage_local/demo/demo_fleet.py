"""Starts a fleet for one demonstration, and stops it when the demonstration ends for whatever reason."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import sage_client as sage
from sage_local.demo.display import Display, LoadingDisplay
from sage_local.fleet.command_lines import executor_processes, scheduler_process, served_name_of
from sage_local.fleet.model_files import ModelNotMade, make_model_if_needed
from sage_local.fleet.readiness import SchedulerProbe
from sage_local.fleet.sessions import members
from sage_local.fleet.spec import FleetSpec
from sage_local.fleet.state_dir import StateDir
from sage_local.fleet.status import FleetStatus
from sage_local.fleet.supervisor import StartFailed, Supervisor

Scenario = Callable[[sage.AsyncClient], Awaitable[list[str]]]
"""Runs on a READY fleet; returns a message for everything that went wrong."""


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived."""


async def run_on_fleet(spec: FleetSpec, display: Display, scenario: Scenario) -> int:
    """Start a fleet, run the scenario on it and stop it.

    Returns:
        0 if nothing went wrong, no process died and none is left; 1 otherwise; 130 if interrupted.
    """
    directory = Path(tempfile.mkdtemp(prefix="sage-demo-"))
    fleet = DemoFleet(spec, StateDir(path=directory), display)
    try:
        problems = await fleet.run(scenario)
    except Interrupted:
        display.say("interrupted")
        problems = None
    left = members(fleet.sessions)
    for member in left:
        display.error(f"process still running: {member.pid} {member.command}")
    for problem in problems or ():
        display.error(problem)
    if problems or left:
        display.error(f"the logs are in {directory}")
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    if problems is None:
        return 130
    display.say("everything is shut down; no process is left")
    return 0


class DemoFleet:
    """The fleet of one demonstration.  ``sessions``: the session ids of all processes that it started."""

    def __init__(self, spec: FleetSpec, state: StateDir, display: Display) -> None:
        self._spec = spec
        self._state = state
        self._display = display
        self.sessions: set[int] = set()

    async def run(self, scenario: Scenario) -> list[str]:
        """Run the scenario; return a message for everything that went wrong.

        Raises:
            Interrupted: SIGINT or SIGTERM arrived; the fleet is stopped.
        """
        try:
            await asyncio.to_thread(make_model_if_needed, self._spec)
        except ModelNotMade as error:
            return [str(error)]
        with LoadingDisplay(self._display) as loading:
            supervisor = self._supervisor(loading)
            async with supervisor:
                with _interruptible():
                    try:
                        return await self._run(supervisor, scenario)
                    except StartFailed as error:
                        return self._explain(error)
                    finally:
                        self._display.say("shutting down")

    async def _run(self, supervisor: Supervisor, scenario: Scenario) -> list[str]:
        spec = self._spec
        what = f"{spec.engine}, {served_name_of(spec)}"
        self._display.heading(f"starting a scheduler and {spec.executors} executors ({what})")
        await supervisor.start()
        async with sage.AsyncClient(spec.address) as client:
            problems = await scenario(client)
        return problems + deaths(supervisor.status())

    def _supervisor(self, loading: LoadingDisplay) -> Supervisor:
        def on_status(status: FleetStatus) -> None:
            self.sessions.update(each.pid for each in status.processes if each.pid is not None)
            loading.show(status)

        return Supervisor(
            scheduler_process(self._spec),
            executor_processes(self._spec),
            address=self._spec.address,
            state=self._state,
            probe=SchedulerProbe(self._spec.address),
            start_timeout_s=self._spec.start_timeout_s,
            on_status=on_status,
        )

    def _explain(self, error: StartFailed) -> list[str]:
        if tail := self._state.log_tail(error.culprit):
            self._display.say(f"the last lines of {error.culprit}'s log:")
            self._display.say("  " + tail.replace("\n", "\n  "))
        return [str(error)]


def deaths(status: FleetStatus) -> list[str]:
    """Return a message for each process that died, whether it was restarted or not."""
    died = [each for each in status.processes if each.restarts or each.state != "running"]
    return [f"{each.name} died (status {each.last_exit}) while requests ran" for each in died]


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise Interrupted in the block at SIGINT or SIGTERM, so that the fleet stops in order."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    interrupted = False

    def on_signal() -> None:
        nonlocal interrupted
        interrupted = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    except asyncio.CancelledError:
        if interrupted:
            task.uncancel()
            raise Interrupted from None
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
