"""The place ``local``: a supervisor's process on this machine, and the files by which it is told what to run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from sage_fleet.errors import FleetError
from sage_fleet.local_place.wanted_fleet import FleetFiles, Progress, WantedFleet
from sage_fleet.places.place_status import ExecutorState, ExecutorStatus, GroupStatus, PlaceStatus
from sage_fleet.places.scale_check import check_scale
from sage_fleet.places.versions import group_version, services_version
from sage_fleet.processes import scheduler_addresses, scheduler_processes
from sage_fleet.specification.fleet import Fleet
from sage_local.fleet.down import NotStopped, stop_fleet
from sage_local.fleet.http_gateway import why_no_gateway
from sage_local.fleet.ports import why_not_free
from sage_local.fleet.requirements import NotInstalled, require_installed
from sage_local.fleet.state_dir import StateDir
from sage_local.fleet.status import FleetPhase, ProcessStatus

POLL_S = 0.1
SUPERVISOR_START_S = 60.0  # that the supervisor's process gets to report for the first time
FIXED = ("address", "standby", "tls", "access")
"""What of the scheduler cannot change while the fleet runs: executors and clients know it."""


class LocalPlace:
    """Runs a fleet as processes of this machine; implements ``Place``."""

    def __init__(self, fleet: Fleet, state: StateDir | None = None) -> None:
        """Build it; nothing is started.  ``state``: the fleet's directory.  Default: SAGE_HOME, or ./.sage."""
        self._fleet = fleet
        self._state = state or StateDir.default()
        self._files = FleetFiles(self._state.path)

    async def apply(self, fleet: Fleet) -> None:
        """Make this machine run ``fleet``; return once it is as wanted.

        Raises:
            FleetError: it cannot run here, an executor failed, or ``start_timeout_s`` and the drains ran out.
        """
        async with self._files.locked():
            if self._is_held():
                generation = self._want_change(fleet)
                supervisor = None
            else:
                await asyncio.to_thread(self._check, fleet)
                self._files.forget()
                self._state.forget_status()
                counts = {name: group.least for name, group in fleet.groups.items()}
                self._files.want(WantedFleet(fleet=fleet, counts=counts))
                generation, supervisor = 1, self._start_supervisor()
                await self._until_held(supervisor)
        self._fleet = fleet
        await self._until_settled(generation, supervisor)

    async def status(self) -> PlaceStatus:
        """Return what runs now."""
        if not self._is_held():
            return PlaceStatus(running=False)
        wanted, found = self._files.wanted(), self._state.read_status()
        if wanted is None or found is None:
            return PlaceStatus(running=False)
        progress = self._files.progress()
        processes = {each.name: each for each in found.processes}
        names = {*wanted.fleet.groups, *(_group_of(name) for name in processes if _group_of(name))}
        return PlaceStatus(
            running=True,
            services=services_version(wanted.fleet),
            scheduler=scheduler_addresses(wanted.fleet),
            groups={name: _group_status(name, wanted, processes) for name in sorted(names)},
            problems=_problems(progress),
        )

    async def scale(self, group: str, count: int, remove_first: Sequence[str] = ()) -> None:
        """Give a group ``count`` executors.  Raises FleetError."""
        async with self._files.locked():
            wanted = self._files.wanted() if self._is_held() else None
            if wanted is None:
                raise FleetError(self._state.not_running)
            check_scale(wanted.fleet, group, count)
            if wanted.counts[group] != count:
                self._files.want(wanted.scaled(group, count, remove_first))

    async def delete(self) -> None:
        """Drain and end all processes.  Raises FleetError if one cannot be ended."""
        async with self._files.locked():
            self._is_held()
            try:
                await asyncio.to_thread(stop_fleet, self._state)
            except NotStopped as error:
                raise FleetError(str(error)) from error
            self._files.forget()

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    def _is_held(self) -> bool:
        """Return whether this fleet runs.  Raises FleetError if another one runs in its directory."""
        if not self._state.is_held():
            return False
        wanted, status = self._files.wanted(), self._state.read_status()
        progress = self._files.progress()
        other = status is not None and progress is not None and status.supervisor_pid != progress.supervisor_pid
        if wanted is None or other:
            raise FleetError(f"a fleet of `sagectl up` runs in {self._state.path}: stop it, or set SAGE_HOME")
        if wanted.fleet.name != self._fleet.name:
            raise FleetError(
                f"name: the fleet {wanted.fleet.name} runs in {self._state.path}, not {self._fleet.name}; "
                "set SAGE_HOME to have several"
            )
        return True

    def _check(self, fleet: Fleet) -> None:
        """Check what a start needs.  Raises FleetError."""
        for address in scheduler_addresses(fleet).split(","):
            if why := why_not_free(address):
                raise FleetError(f"scheduler.address: cannot listen on {address}: {why}")
        try:
            for engine in {group.engine for group in fleet.groups.values()}:
                require_installed(engine)
        except NotInstalled as error:
            raise FleetError(str(error)) from error
        if fleet.scheduler.standby and fleet.scheduler.journal:
            raise FleetError("scheduler.journal: with a standby this machine runs a PostgreSQL of its own")
        if fleet.gateway is not None and (why := why_no_gateway(fleet.gateway.address)):
            raise FleetError(f"gateway: {why}")

    def _want_change(self, fleet: Fleet) -> int:
        """Have the supervisor's process change to ``fleet``; return the generation to wait for.  Raises FleetError."""
        wanted = self._files.wanted()
        assert wanted is not None
        for name in FIXED:
            if getattr(fleet.scheduler, name) != getattr(wanted.fleet.scheduler, name):
                raise FleetError(f"scheduler.{name} cannot change while the fleet runs: delete it first")
        here = self._state.path
        if fleet.scheduler.standby and scheduler_processes(fleet, here) != scheduler_processes(wanted.fleet, here):
            raise FleetError("scheduler: with a standby its settings cannot change while it runs: delete it first")
        counts = {name: group.bounded(wanted.counts.get(name, group.least)) for name, group in fleet.groups.items()}
        if fleet != wanted.fleet or counts != wanted.counts:
            wanted = WantedFleet(fleet=fleet, counts=counts, generation=wanted.generation + 1)
            self._files.want(wanted)
        return wanted.generation

    def _start_supervisor(self) -> subprocess.Popen[bytes]:
        log = self._state.open_log("supervisor")
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "sage_fleet.local_place"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"SAGE_HOME": str(self._state.path)},
                start_new_session=True,
            )
        finally:
            os.close(log)

    async def _until_held(self, supervisor: subprocess.Popen[bytes]) -> None:
        """Wait until the supervisor's process holds the directory, so that no other command starts a second one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SUPERVISOR_START_S):
                while supervisor.poll() is None and not self._state.is_held():
                    await asyncio.sleep(POLL_S)

    async def _until_settled(self, generation: int, supervisor: subprocess.Popen[bytes] | None) -> None:
        bound_s = self._fleet.start_timeout_s + self._fleet.drain_timeout_s + SUPERVISOR_START_S
        try:
            async with asyncio.timeout(bound_s):
                while not self._is_settled(generation, supervisor):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise FleetError(
                f"not as described within {bound_s:g} s; it goes on: `sagectl fleet status` says how far it is"
            ) from None

    def _is_settled(self, generation: int, supervisor: subprocess.Popen[bytes] | None) -> bool:
        """Return whether all is as wanted.  Raises FleetError for what will not become so by waiting."""
        ended = supervisor is not None and supervisor.poll() is not None
        status = self._state.read_status()
        if status is not None and status.phase is FleetPhase.FAILED:
            raise self._failed(status.reason, status.culprit)
        if ended or (supervisor is None and not self._state.is_held()):
            raise self._failed("the supervisor's process ended", "supervisor")
        progress = self._files.progress()
        if progress is None or status is None or progress.supervisor_pid != status.supervisor_pid:
            return False
        if progress.generation < generation:
            return False
        for name, problem in progress.problems.items():
            raise self._failed(problem if name in self._fleet.groups else f"{name}: {problem}", name)
        return progress.settled

    def _failed(self, reason: str, culprit: str) -> FleetError:
        tail = self._state.log_tail(culprit) if culprit else ""
        return FleetError(f"{reason}; the end of {self._state.log(culprit)}:\n{tail}" if tail else reason)


def _group_of(process: str) -> str:
    """Return the group of an executor's process; empty for the other processes of a fleet."""
    group, _, number = process.rpartition("-")
    return group if number.isdigit() else ""


def _group_status(name: str, wanted: WantedFleet, processes: Mapping[str, ProcessStatus]) -> GroupStatus:
    known = name in wanted.fleet.groups
    own = sorted((each for each in processes if _group_of(each) == name), key=lambda each: int(each.rpartition("-")[2]))
    return GroupStatus(
        version=group_version(wanted.fleet, name) if known else "",
        wanted=wanted.counts[name] if known else 0,
        executors=tuple(_executor_status(processes[each]) for each in own),
    )


def _executor_status(process: ProcessStatus) -> ExecutorStatus:
    states: dict[str, ExecutorState] = {"running": "running", "stopping": "draining"}
    return ExecutorStatus(
        name=process.name,
        state=states.get(process.state, "ended"),
        where=process.where,
        restarts=process.restarts,
    )


def _problems(progress: Progress | None) -> tuple[str, ...]:
    return tuple(f"{name}: {problem}" for name, problem in progress.problems.items()) if progress else ()
