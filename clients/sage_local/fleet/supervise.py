"""Runs a supervisor until a signal arrives: in the background process of ``sagectl up``, or in its foreground."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from sage_local.fleet.command_lines import executor_processes, gateway_process, scheduler_process, standby_processes
from sage_local.fleet.http_gateway import answers
from sage_local.fleet.readiness import SchedulerProbe
from sage_local.fleet.spec import FleetSpec
from sage_local.fleet.state_dir import StateDir
from sage_local.fleet.status import FleetStatus
from sage_local.fleet.supervisor import StartFailed, Supervisor


def supervise(spec: FleetSpec, state: StateDir, say: Callable[[FleetStatus], None] = lambda status: None) -> int:
    """Run the fleet until SIGTERM, SIGINT or SIGHUP; a second signal kills all processes at once.

    Returns:
        0 after a signal, 1 if the fleet could not start (the status says why).

    Raises:
        AlreadyRunning: another supervisor holds the directory.
    """

    def report(status: FleetStatus) -> None:
        state.write_status(status)
        say(status)

    with state.held():
        return asyncio.run(_run(spec, state, report))


async def _run(spec: FleetSpec, state: StateDir, report: Callable[[FleetStatus], None]) -> int:
    if spec.standby:
        *before, scheduler = standby_processes(spec, state.path / "postgres")
    else:
        before, scheduler = [], scheduler_process(spec, state.path / "scheduler")
    supervisor = Supervisor(
        scheduler,
        executor_processes(spec),
        before=before,
        address=spec.addresses,
        state=state,
        probe=SchedulerProbe(spec.addresses),
        start_timeout_s=spec.start_timeout_s,
        wait_for_pair=spec.forms_pair,
        gateway=gateway_process(spec),
        gateway_answers=lambda: answers(spec.http),
        on_status=report,
    )
    stop = stop_on_signals(supervisor)
    async with supervisor:
        starting = asyncio.create_task(supervisor.start(), name="start")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
        elif isinstance(starting.exception(), StartFailed):
            stopping.cancel()
            return 1
        else:
            starting.result()
        await stopping
    return 0


def stop_on_signals(supervisor: Supervisor) -> asyncio.Event:
    """Return an event that SIGTERM, SIGINT or SIGHUP sets; a second signal kills all processes at once."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            supervisor.kill()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop
