"""Brings the processes of this machine to what is wanted, again and again."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import sage_client as sage
from sage_fleet.errors import FleetError
from sage_fleet.local_place.device_pool import DevicePool
from sage_fleet.local_place.hung_watch import HUNG_S, HungWatch
from sage_fleet.local_place.wanted_fleet import FleetFiles, Progress, WantedFleet
from sage_fleet.places.group_changes import Member, next_change, removal_rank
from sage_fleet.places.versions import group_version
from sage_fleet.processes import executor_process, http_process, scheduler_processes
from sage_fleet.scheduler_client import instances_of, is_gone, is_ready
from sage_local.fleet.command_lines import ProcessSpec
from sage_local.fleet.status import ProcessStatus
from sage_local.fleet.supervisor import Supervisor

log = logging.getLogger(__name__)

PERIOD_S = 0.25
SCHEDULER = "scheduler"  # name of its process
FAILING_RESTARTS = 2  # of an executor that was never READY: something is wrong with it


@dataclass(kw_only=True, slots=True)
class _Executor:
    """An executor that was started, until it has ended on request."""

    group: str
    number: int
    version: str
    started_at: float  # of the event loop's clock, in seconds
    was_ready: bool = False
    ready_process: int | None = None  # its number, of the process that was READY last
    drain: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return f"{self.group}-{self.number}"


class Reconciler:
    """Starts, replaces and drains executors, and restarts services whose settings changed."""

    def __init__(
        self,
        supervisor: Supervisor,
        files: FleetFiles,
        directory: Path,
        devices: DevicePool,
        client: sage.AsyncClient,
        services: tuple[ProcessSpec, ProcessSpec | None],
    ) -> None:
        """Build it.  ``services``: the scheduler's process that runs, and the gateway's."""
        self._supervisor = supervisor
        self._files = files
        self._directory = directory
        self._devices = devices
        self._client = client
        self._scheduler, self._gateway = services
        self._executors: dict[str, _Executor] = {}
        self._wanted: WantedFleet | None = None
        self._trouble = ""  # that was logged last
        self._hung = HungWatch()
        self._reported: Progress | None = None

    async def run(self) -> None:
        """Work until cancelled.  Executors that drain are then left to the supervisor's ``stop``."""
        try:
            while True:
                await self._step()
                await asyncio.sleep(PERIOD_S)
        finally:
            drains = [each.drain for each in self._executors.values() if each.drain is not None]
            for drain in drains:
                drain.cancel()
            await asyncio.gather(*drains, return_exceptions=True)

    async def _step(self) -> None:
        wanted = self._read_wanted()
        if wanted is None:
            return
        await self._change_services(wanted)
        problems: dict[str, str] = {}
        found = None
        try:
            found = await instances_of(self._client)
        except sage.SageError as error:
            problems[SCHEDULER] = str(error)
        known = found or {}
        instances = {each.name: known[each.name] for each in self._executors.values() if _is_of(known, each)}
        processes = {each.name: each for each in self._supervisor.status().processes}
        for each in self._executors.values():
            _note_ready(each, instances, processes)
        if found is not None or not self._executors:  # else what is READY is not known
            for group in {*wanted.counts, *(each.group for each in self._executors.values())}:
                problems |= await self._change_group(wanted, group, instances, processes)
        if found is not None:
            self._end_hung(instances, processes)
        problems |= self._problems(wanted, instances, processes)
        self._report(wanted, instances, problems)

    def _read_wanted(self) -> WantedFleet | None:
        """Return what is wanted; what was wanted before where another version of this program wrote the file."""
        try:
            self._wanted = self._files.wanted()
        except FleetError as error:
            self._say(f"what is wanted stays as it was: {error}")
        return self._wanted

    def _say(self, trouble: str) -> None:
        """Log a trouble with the files, unless it is the one that was logged last."""
        if trouble != self._trouble:
            log.error("%s", trouble)
        self._trouble = trouble

    async def _change_services(self, wanted: WantedFleet) -> None:
        *_, scheduler = scheduler_processes(wanted.fleet, self._directory)
        if not wanted.fleet.scheduler.standby and scheduler != self._scheduler:
            log.info("the scheduler's settings changed: it is restarted")
            await self._supervisor.restart_scheduler(scheduler)
            self._scheduler = scheduler
        gateway = http_process(wanted.fleet)
        if gateway != self._gateway:
            log.info("the gateway's settings changed")
            await self._supervisor.set_gateway(gateway)
            self._gateway = gateway

    async def _change_group(
        self,
        wanted: WantedFleet,
        group: str,
        instances: Mapping[str, sage.Instance],
        processes: Mapping[str, ProcessStatus],
    ) -> dict[str, str]:
        """Make the next change of a group; return what keeps it from being made, by the group's name."""
        described = wanted.fleet.groups.get(group)
        count = wanted.counts.get(group, 0) if described is not None else 0
        version = _version(wanted, group)
        if described is not None and count:
            try:
                self._devices.check(described)
            except FleetError as error:
                return {group: f"groups.{group}.{error}"}
        own = [each for each in self._executors.values() if each.group == group]
        room = described is not None and self._devices.has_room(described)
        if described is not None and described.device_group and own:
            room = False  # the new one would wait for a place that the old one has
        advice = wanted.remove_first.get(group, ())
        members = [_member(each, instances, processes, removal_rank(each.name, advice)) for each in own]
        change = next_change(members, count=count, version=version, room=room)
        for number in change.drain:
            self._drain(self._executors[f"{group}-{number}"])
        for number in change.start:
            if described is not None and self._devices.has_room(described):
                executor = _Executor(group=group, number=number, version=version, started_at=_now())
                try:
                    await self._start(wanted, executor)
                except OSError as error:  # too many processes, or too little memory: the next step tries again
                    return {executor.name: f"cannot be started: {error}"}
        return {}

    async def _start(self, wanted: WantedFleet, executor: _Executor) -> None:
        """Start an executor on devices of its own.  Raises OSError, and keeps nothing then."""
        devices = self._devices.take(executor.name, wanted.fleet.groups[executor.group])
        self._executors[executor.name] = executor
        try:
            await self._supervisor.add(executor_process(wanted.fleet, executor.group, executor.name, devices))
        except OSError:
            self._devices.give_back(executor.name)
            del self._executors[executor.name]
            raise
        log.info("%s starts", executor.name)

    def _drain(self, executor: _Executor) -> None:
        log.info("%s drains", executor.name)
        executor.drain = asyncio.create_task(self._drained(executor), name=f"drain-{executor.name}")

    async def _drained(self, executor: _Executor) -> None:
        await self._supervisor.remove(executor.name)
        self._devices.give_back(executor.name)
        del self._executors[executor.name]
        log.info("%s has ended", executor.name)

    def _end_hung(self, instances: Mapping[str, sage.Instance], processes: Mapping[str, ProcessStatus]) -> None:
        """Kill processes that hang, with their engines: they would keep their devices.  They are started again."""
        silent = [
            (name, processes[name].restarts)
            for name, each in self._executors.items()
            if each.drain is None and name in processes and _is_silent(each, instances.get(name), processes[name])
        ]
        for name in self._hung.look(silent, _now()):
            log.error("%s hangs: its process runs, and the scheduler lost it %g s ago; it is killed", name, HUNG_S)
            self._supervisor.kill_executor(name)

    def _problems(
        self, wanted: WantedFleet, instances: Mapping[str, sage.Instance], processes: Mapping[str, ProcessStatus]
    ) -> dict[str, str]:
        """Return what is wrong with executors of the wanted version, in words, by their names."""
        found = {}
        for name, executor in self._executors.items():
            instance, process = instances.get(name), processes.get(name)
            if executor.drain is not None or executor.version != _version(wanted, executor.group):
                continue
            if instance is not None and instance.state is sage.InstanceState.FAILED:
                found[name] = instance.state_reason or "its engine failed"
            elif process is not None and not executor.was_ready and process.restarts >= FAILING_RESTARTS:
                found[name] = f"it ended {process.restarts} times before it was ready, last with {process.last_exit}"
        return found

    def _report(self, wanted: WantedFleet, instances: Mapping[str, sage.Instance], problems: Mapping[str, str]) -> None:
        progress = Progress(
            supervisor_pid=os.getpid(),
            generation=wanted.generation,
            settled=not problems and self._is_settled(wanted, instances),
            problems=problems,
        )
        if progress == self._reported:
            return
        try:
            self._files.report(progress)
        except FleetError as error:  # the fleet runs on, and the next step reports it
            self._say(str(error))
        else:
            self._reported = progress

    def _is_settled(self, wanted: WantedFleet, instances: Mapping[str, sage.Instance]) -> bool:
        for group in wanted.fleet.groups:
            own = [each for each in self._executors.values() if each.group == group]
            if len(own) != wanted.counts[group] or any(each.version != _version(wanted, group) for each in own):
                return False
        return all(
            each.drain is None and each.group in wanted.fleet.groups and is_ready(instances.get(each.name))
            for each in self._executors.values()
        )


def _version(wanted: WantedFleet, group: str) -> str:
    return group_version(wanted.fleet, group) if group in wanted.fleet.groups else ""


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_of(found: Mapping[str, sage.Instance], executor: _Executor) -> bool:
    """Return whether the scheduler's instance is this executor's, not that of an earlier one with its name."""
    instance = found.get(executor.name)
    return instance is not None and instance.state_age_s <= _now() - executor.started_at


def _note_ready(
    executor: _Executor, instances: Mapping[str, sage.Instance], processes: Mapping[str, ProcessStatus]
) -> None:
    if is_ready(instances.get(executor.name)):
        executor.was_ready = True
        if executor.name in processes:
            executor.ready_process = processes[executor.name].restarts


def _is_silent(executor: _Executor, instance: sage.Instance | None, process: ProcessStatus) -> bool:
    """Return whether a process runs and the scheduler has lost its executor, or never heard of one that was READY.

    A scheduler that started meanwhile knows only those that dialled it.
    """
    if process.state != "running":
        return False
    return is_gone(instance) if instance is not None else executor.ready_process == process.restarts


def _member(
    executor: _Executor,
    instances: Mapping[str, sage.Instance],
    processes: Mapping[str, ProcessStatus],
    removal: int,
) -> Member:
    instance, process = instances.get(executor.name), processes.get(executor.name)
    failed = instance is not None and is_gone(instance)
    ended = process is None or process.state == "ended"
    return Member(
        number=executor.number,
        version=executor.version,
        ready=is_ready(instance) and not ended,
        broken=failed or ended or not executor.was_ready,
        draining=executor.drain is not None,
        removal=removal,
    )
