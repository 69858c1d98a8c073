"""The process that runs a fleet on this machine, from ``apply`` to ``delete``."""

from __future__ import annotations

import asyncio
import os

from sage_common.clock import AsyncioClock
from sage_common.tasks import WatchedTasks
from sage_fleet.controller.controller import Controller
from sage_fleet.local_place.device_pool import DevicePool
from sage_fleet.local_place.place import LocalPlace
from sage_fleet.local_place.reconciler import Reconciler
from sage_fleet.local_place.wanted_fleet import FleetFiles, WantedFleet
from sage_fleet.processes import http_process, scheduler_addresses, scheduler_processes
from sage_fleet.scheduler_client import client_of, desired_of
from sage_fleet.specification.fleet import Fleet
from sage_local.fleet.devices import visible_gpus
from sage_local.fleet.readiness import SchedulerProbe
from sage_local.fleet.state_dir import StateDir
from sage_local.fleet.supervise import stop_on_signals
from sage_local.fleet.supervisor import StartFailed, Supervisor


def supervise_fleet(state: StateDir) -> int:
    """Run the fleet that is wanted in a directory until SIGTERM, SIGINT or SIGHUP.

    Returns:
        0 after a signal, 1 if the scheduler could not start or nothing is wanted.

    Raises:
        AlreadyRunning: another supervisor holds the directory.
    """
    with state.held():
        wanted = FleetFiles(state.path).wanted()
        return 1 if wanted is None else asyncio.run(_run(wanted, state))


async def _run(wanted: WantedFleet, state: StateDir) -> int:
    fleet = wanted.fleet
    addresses = scheduler_addresses(fleet)
    *before, scheduler = scheduler_processes(fleet, state.path)
    gateway = http_process(fleet)
    client = client_of(fleet, addresses)
    supervisor = Supervisor(
        scheduler,
        (),
        before=before,
        address=addresses,
        state=state,
        probe=SchedulerProbe(addresses, client),
        start_timeout_s=fleet.start_timeout_s,
        gateway=gateway,
        on_status=state.write_status,
    )
    stop = stop_on_signals(supervisor)
    async with supervisor:
        try:
            await supervisor.start()
        except StartFailed:
            return 1
        devices = DevicePool(visible_gpus(), sorted(os.sched_getaffinity(0)))
        files = FleetFiles(state.path)
        reconciler = Reconciler(supervisor, files, state.path, devices, client, (scheduler, gateway))
        tasks = WatchedTasks()
        tasks.start(reconciler.run(), name="reconcile")
        place = LocalPlace(fleet, state)
        controller = Controller(
            lambda: _applied(files, fleet), place, lambda: desired_of(client), AsyncioClock(), client
        )
        tasks.start(controller.run(), name="follow-desired-instances")
        died = asyncio.create_task(tasks.failure(), name="failure")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({died, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await tasks.stop()
        if died.done():
            raise died.result()
        died.cancel()
    return 0


def _applied(files: FleetFiles, first: Fleet) -> Fleet:
    """Return the fleet that was applied last."""
    wanted = files.wanted()
    return first if wanted is None else wanted.fleet
