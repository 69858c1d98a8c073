"""Starts a fleet's processes, restarts those that die, and leaves no process behind."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from sage_local.fleet.command_lines import ProcessSpec
from sage_local.fleet.readiness import Probe, all_ready, failed
from sage_local.fleet.reaper_link import ReaperLink
from sage_local.fleet.sessions import boot_id
from sage_local.fleet.state_dir import StateDir
from sage_local.fleet.status import FleetPhase, FleetStatus, InstanceProgress
from sage_local.fleet.supervised_process import SupervisedProcess

log = logging.getLogger(__name__)

SCHEDULER_TIMEOUT_S = 30.0  # until the scheduler answers its first call
GATEWAY_TIMEOUT_S = 120.0  # that the HTTP gateway gets to be healthy once all instances are READY
PAIR_TIMEOUT_S = 10.0  # that a start waits for a usable pair; the fleet is READY without one too
POLL_S = 0.25
FIRST_BACKOFF_S = 0.5  # wait before a restart; doubles at each consecutive failure
MAX_BACKOFF_S = 30.0
STEADY_S = 60.0  # after a process ran this long, its next restart waits only FIRST_BACKOFF_S again


class StartFailed(Exception):
    """The fleet could not start.  ``culprit`` names the process whose log says more; empty if there is none."""

    def __init__(self, message: str, *, culprit: str = "") -> None:
        self.culprit = culprit
        super().__init__(message)


class Supervisor:
    """Keeps one fleet running.  Leaving the ``async with`` block stops the fleet, also after an error.

    If any process ends during the start, the start fails: a process that never worked is not restarted.  Later a
    process that ends is restarted after 0.5 s; the wait doubles at each consecutive failure, up to 30 s.
    """

    def __init__(
        self,
        scheduler: ProcessSpec,
        executors: Sequence[ProcessSpec],
        *,
        before: Sequence[ProcessSpec] = (),
        address: str,
        state: StateDir,
        probe: Probe,
        start_timeout_s: float,
        wait_for_pair: bool = False,
        gateway: ProcessSpec | None = None,
        gateway_answers: Callable[[], Awaitable[bool]] | None = None,
        on_status: Callable[[FleetStatus], None] = lambda status: None,
        first_backoff_s: float = FIRST_BACKOFF_S,
    ) -> None:
        """Build the supervisor; nothing runs yet.

        ``before``: processes that start before the scheduler, one after the other, and stop after it.
        ``gateway_answers``: asks whether the HTTP gateway, if there is one, is healthy.
        """
        gateways = () if gateway is None else (gateway,)
        grace_s = max(each.stop_timeout_s for each in (*before, scheduler, *executors, *gateways))
        self._reaper = ReaperLink(grace_s)
        self._state = state
        self._before = [SupervisedProcess(each, state, self._reaper) for each in before]
        self._scheduler = SupervisedProcess(scheduler, state, self._reaper)
        self._executors = [SupervisedProcess(each, state, self._reaper) for each in executors]
        self._gateways = [SupervisedProcess(each, state, self._reaper) for each in gateways]  # one at most
        self._gateway_answers = gateway_answers
        self._gateway_healthy = False
        self._address = address
        self._probe = probe
        self._start_timeout_s = start_timeout_s
        self._wait_for_pair = wait_for_pair
        self._pair_usable = False
        self._on_status = on_status
        self._first_backoff_s = first_backoff_s
        self._phase = FleetPhase.STARTING
        self._reason = self._culprit = self._unreported = ""
        self._answers = False  # whether the scheduler answered the last call
        self._instances: tuple[InstanceProgress, ...] = ()
        self._restarters: dict[SupervisedProcess, asyncio.Task[None]] = {}
        self._early_end: asyncio.Future[SupervisedProcess] = asyncio.get_running_loop().create_future()

    @property
    def _wanted(self) -> list[str]:
        return [each.spec.name for each in self._executors]

    @property
    def processes(self) -> list[SupervisedProcess]:
        """All processes, in the order of their start."""
        return [*self._before, self._scheduler, *self._executors, *self._gateways]

    async def start(self) -> None:
        """Start all processes and wait until every executor's instance is READY and the HTTP gateway is healthy.

        Then wait 10 s at most for a usable pair.

        Raises:
            StartFailed: a process ended, an engine failed or the time ran out; ``stop`` must still be awaited.
        """
        try:
            await self._start_scheduler()
            await self._start_executors()
            await self._wait_for_gateway()
            if self._wait_for_pair:
                await self._wait_until(lambda: self._pair_usable, PAIR_TIMEOUT_S, poll=self._poll_pair)
        except StartFailed as error:
            self._phase, self._reason, self._culprit = FleetPhase.FAILED, str(error), error.culprit
            self._report()
            raise
        self._phase = FleetPhase.READY
        self._report()

    async def stop(self) -> None:
        """Stop the HTTP gateway, drain and stop the executors, then the scheduler.

        Kills a process that exceeds its stop timeout.
        """
        if self._phase is not FleetPhase.FAILED:
            self._phase = FleetPhase.STOPPING
        self._report()
        for restarter in self._restarters.values():
            restarter.cancel()
        await asyncio.gather(*self._restarters.values(), return_exceptions=True)
        await asyncio.gather(*(each.stop() for each in self._gateways))
        await asyncio.gather(*(each.stop() for each in self._executors))
        for each in (self._scheduler, *reversed(self._before)):
            await each.stop()
        await self._probe.close()
        await asyncio.to_thread(self._reaper.close)
        if self._phase is not FleetPhase.FAILED:
            self._phase = FleetPhase.STOPPED
        self._report()

    async def add(self, executor: ProcessSpec) -> None:
        """Start a further executor of a fleet that was started; it is restarted like the others.  Raises OSError."""
        process = SupervisedProcess(executor, self._state, self._reaper)
        self._executors.append(process)
        try:
            await self._launch(process)
        except OSError:
            self._executors.remove(process)
            raise

    async def remove(self, name: str) -> None:
        """Drain and stop an executor; does nothing if there is none of this name.

        Kills it if it exceeds its stop timeout.
        """
        process = next((each for each in self._executors if each.spec.name == name), None)
        if process is None:
            return
        await self._halt(process)
        self._executors.remove(process)
        self._report()

    def kill_executor(self, name: str) -> None:
        """Kill an executor with its engine, if there is one of this name; it is restarted as after any other end."""
        for each in self._executors:
            if each.spec.name == name:
                each.kill()

    async def restart_scheduler(self, scheduler: ProcessSpec) -> None:
        """Stop the scheduler, which hands its requests over, and start it with another command line."""
        await self._halt(self._scheduler)
        self._scheduler.spec = scheduler
        await self._launch(self._scheduler, later=True)

    async def set_gateway(self, gateway: ProcessSpec | None) -> None:
        """Stop the HTTP gateway, if there is one, and start this one; None: none."""
        for each in self._gateways:
            await self._halt(each)
        self._gateways = [] if gateway is None else [SupervisedProcess(gateway, self._state, self._reaper)]
        for each in self._gateways:
            await self._launch(each, later=True)

    def kill(self) -> None:
        """Kill all processes at once; ``stop`` must still be awaited."""
        for each in self.processes:
            each.kill()

    def status(self) -> FleetStatus:
        """Return the fleet's status."""
        return FleetStatus(
            phase=self._phase,
            reason=self._reason,
            culprit=self._culprit,
            address=self._address,
            supervisor_pid=os.getpid(),
            processes=tuple(each.status() for each in self.processes),
            instances=self._instances,
            pair_usable=self._pair_usable,
            stop_timeout_s=max(each.spec.stop_timeout_s for each in self.processes),
            boot_id=boot_id(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _start_scheduler(self) -> None:
        for each in (*self._before, self._scheduler):
            await self._launch(each)
        if not await self._wait_until(lambda: self._answers, SCHEDULER_TIMEOUT_S):
            message = f"the scheduler did not answer within {SCHEDULER_TIMEOUT_S:g} s"
            raise StartFailed(message, culprit=self._scheduler.spec.name)

    async def _start_executors(self) -> None:
        for each in (*self._executors, *self._gateways):
            await self._launch(each)
        if not await self._wait_until(lambda: all_ready(self._instances, self._wanted), self._start_timeout_s):
            ready = {each.instance_id for each in self._instances if each.state == "ready"}
            late = [name for name in self._wanted if name not in ready]
            message = f"not ready within {self._start_timeout_s:g} s: {', '.join(late)}"
            raise StartFailed(message, culprit=late[0])

    async def _wait_for_gateway(self) -> None:
        if not self._gateways or self._gateway_answers is None:
            return
        if not await self._wait_until(lambda: self._gateway_healthy, GATEWAY_TIMEOUT_S, poll=self._poll_gateway):
            message = f"the HTTP gateway was not healthy within {GATEWAY_TIMEOUT_S:g} s"
            raise StartFailed(message, culprit=self._gateways[0].spec.name)

    async def _poll_gateway(self) -> None:
        if self._gateway_answers is not None:
            self._gateway_healthy = await self._gateway_answers()

    async def _launch(self, process: SupervisedProcess, *, later: bool = False) -> None:
        """Start a process and keep it running.  Raises OSError; with ``later`` it is tried again instead."""
        if not later:
            await process.start()
        else:
            await self._try_to_start(process)
        self._restarters[process] = asyncio.create_task(
            self._restart_when_ended(process), name=f"keep-{process.spec.name}"
        )
        self._report()

    async def _halt(self, process: SupervisedProcess) -> None:
        """Stop a process that is not to be restarted."""
        if (restarter := self._restarters.pop(process, None)) is not None:
            restarter.cancel()
            await asyncio.gather(restarter, return_exceptions=True)
        process.stopping = True
        self._report()
        await process.stop()
        process.stopping = False

    async def _wait_until(
        self, reached: Callable[[], bool], timeout_s: float, *, poll: Callable[[], Awaitable[None]] | None = None
    ) -> bool:
        """Poll (the instances by default) until ``reached()``; return False if the time runs out first."""
        poll = poll or self._poll_instances
        end = asyncio.get_running_loop().time() + timeout_s
        while not reached():
            if asyncio.get_running_loop().time() > end:
                return False
            await asyncio.wait({self._early_end}, timeout=POLL_S)
            if self._early_end.done():
                raise _ended_early(self._early_end.result())
            await poll()
        return True

    async def _poll_pair(self) -> None:
        self._pair_usable = await self._probe.pair_usable()

    async def _poll_instances(self) -> None:
        """Ask the scheduler for the instances and report a change."""
        instances = await self._probe.instances()
        self._answers = instances is not None
        if instances is not None and instances != self._instances:
            self._instances = instances
            self._report()
        broken = failed(self._instances, self._wanted)
        if broken is not None:
            raise StartFailed(f"{broken.instance_id}: {broken.message}", culprit=broken.instance_id)

    async def _restart_when_ended(self, process: SupervisedProcess) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = self._first_backoff_s
        while True:
            began = loop.time()
            if process.starts:
                await process.ended()
            if self._phase is FleetPhase.STARTING:
                if not self._early_end.done():
                    self._early_end.set_result(process)
                return
            self._report()
            if loop.time() - began > STEADY_S:
                backoff_s = self._first_backoff_s
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
            await self._try_to_start(process)
            self._report()

    async def _try_to_start(self, process: SupervisedProcess) -> None:
        """Start a process; log why it cannot be started, as with too many processes or too little memory."""
        try:
            await process.start()
        except OSError as error:
            log.error("%s cannot be started yet: %s", process.spec.name, error)

    def _report(self) -> None:
        """Report the status.  Where it cannot be written, the processes are kept running all the same."""
        try:
            self._on_status(self.status())
        except OSError as error:
            if str(error) != self._unreported:
                log.error("the fleet's status cannot be written: %s", error)
            self._unreported = str(error)
        else:
            self._unreported = ""


def _ended_early(process: SupervisedProcess) -> StartFailed:
    name, status = process.spec.name, process.last_exit or 0
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return StartFailed(f"{name} {how} while it started", culprit=name)
