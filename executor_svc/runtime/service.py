"""Runs the executor from its start to its exit status."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass
from typing import Protocol

from executor_svc.runtime.attempts.attempt_table import AttemptTable
from executor_svc.runtime.attempts.services import AttemptServices
from executor_svc.runtime.device_place import DevicePlace
from executor_svc.runtime.drain import Drain
from executor_svc.runtime.engine_port import (
    Engine,
    EngineDeadError,
    EngineError,
    EngineFactory,
    EngineState,
    ModelError,
)
from executor_svc.runtime.engine_sleep import EngineSleep
from executor_svc.runtime.kv_releases import KvReleases
from executor_svc.runtime.messages.outputs import EndCause
from executor_svc.runtime.messages.reports import EngineStatus
from executor_svc.runtime.observer import NULL_OBSERVER, Observer
from executor_svc.runtime.outputs.outbox import Outbox
from executor_svc.runtime.run_time_adapters import RunTimeAdapters
from executor_svc.runtime.session.load_meter import LoadMeter
from executor_svc.runtime.session.loop_lag import LoopLag
from executor_svc.runtime.session.opener import RegistrationRefused
from executor_svc.runtime.session.session import Session
from executor_svc.runtime.stuck_watch import StuckWatch
from executor_svc.runtime.text.text_source import TextSource
from sage_common.tasks import TaskDied, WatchedTasks

log = logging.getLogger(__name__)

PROGRESS_GAP_S = 0.2  # least time between two progress reports of the same start state
HEALTH_INTERVAL_S = 1.0
HEALTH_TIMEOUT_S = 10.0  # for one health check; an engine that exceeds it gets a warning and is not dead yet
REPORT_FAILURE_TIMEOUT_S = 5.0  # for a failure to be reported to a scheduler before the process ends
SHUTDOWN_TIMEOUT_S = 30.0  # for the engine to end all its processes


@dataclass(frozen=True, kw_only=True, slots=True)
class Exit:
    """The exit status of the process and the reason for it.  A supervisor acts on every status but 0."""

    status: int
    message: str = ""

    LEFT = 0
    DEFECT = 1
    ENGINE_FAILED_TO_START = 3
    ENGINE_DIED = 4
    REFUSED = 5


class HealthPort(Protocol):
    """The port to the health server."""

    def serving(self, serving: bool) -> None:
        """Report whether this executor accepts attempts.  Returns at once."""
        ...


class ExecutorService:
    """Runs one executor: starts the engine, keeps the session with a scheduler, ends both in order."""

    def __init__(
        self,
        *,
        factory: EngineFactory,
        session: Session,
        attempts: AttemptTable,
        outbox: Outbox,
        meter: LoadMeter,
        lag: LoopLag,
        drain: Drain,
        health: HealthPort,
        tasks: WatchedTasks,
        place: DevicePlace | None = None,
        stuck_limit_s: float | None = None,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        """``place``: on the device that the engine shares with others; None: it has its device for itself.

        ``stuck_limit_s``: for which the engine may stand still, or refuse to sleep, before it counts as dead; None:
        however long.
        """
        self._factory = factory
        self._session = session
        self.attempts = attempts
        self._outbox = outbox
        self._meter = meter
        self._lag = lag
        self._drain = drain
        self._health = health
        self._tasks = tasks
        self._releases = KvReleases(session.control.answer)
        self._takes_turns = place is not None
        self._sleep = EngineSleep(
            kept_awake=self._kept_awake,
            on_change=self._sleep_changed,
            on_dead=self._engine_died,
            place=place,
            refusal_limit_s=stuck_limit_s,
        )
        self._stuck = StuckWatch(stuck_limit_s) if stuck_limit_s is not None else None
        self._adapters = RunTimeAdapters(
            uses=attempts.uses,
            on_change=session.control.want_adapter_states,
            may_work=lambda: self._sleep.awake,
            observer=observer,
        )
        self._engine: Engine | None = None
        self._starting: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._reported_at = 0.0
        attempts.holds_adapter = self._adapters.holds
        self._adapters.on_idle = self._sleep.check
        attempts.engine_awake = lambda: self._sleep.awake
        attempts.on_change = self._load_changed
        session.on_drain = drain.ordered
        session.on_release_kv = self._releases.release
        session.on_adapters_wanted = lambda command: self._adapters.want(command.number, command.sources)
        session.control.adapter_states = self._adapters.states
        session.on_sleep_wanted = lambda command: self._sleep.order(command.number, asleep=command.asleep)
        session.control.sleep_report = self._sleep.report
        session.on_connection = self._connection_changed

    # --- events -----------------------------------------------------------------------------------------

    def _decide(self, exit: Exit) -> None:
        """End the process with ``exit``.  The first exit that is decided counts."""
        if not self._exit.done():
            self._exit.set_result(exit)

    def stop(self, signal_number: int) -> None:
        """Handle SIGTERM or SIGINT.  The first signal drains the executor, a second one ends the process at once."""
        name = signal.Signals(signal_number).name
        if self._leaving is not None:
            log.warning("second signal (%s): exiting without waiting for running attempts", name)
            self._decide(Exit(status=128 + signal_number))
            return
        log.info("%s received: draining", name)
        if self._starting is not None:
            self._starting.cancel()
        self._leaving = asyncio.get_running_loop().create_task(self._leave(name), name="leave")
        self._report_health()

    async def _leave(self, reason: str) -> None:
        await self._drain.leave(reason)
        self._decide(Exit(status=Exit.LEFT))

    def _engine_died(self, error: EngineDeadError) -> None:
        self._decide(Exit(status=Exit.ENGINE_DIED, message=f"the engine died: {error}"))

    def _load_changed(self) -> None:
        self._session.load_changed()
        self._adapters.check()
        self._sleep.check()
        self._drain.check()

    def _kept_awake(self) -> str:
        """Return in words what keeps the engine from falling asleep; empty: nothing."""
        if running := self.attempts.running:
            return f"{running} attempts run"
        return "an adapter is loaded or unloaded" if self._adapters.working else ""

    def _sleep_changed(self) -> None:
        self._session.control.want_sleep_report()
        self._adapters.resume()

    def _connection_changed(self) -> None:
        if self._session.connected:
            self._releases.forget()
            self._adapters.begin_session()
            self._sleep.begin_session()
            self._drain.session_changed()
        self._report_health()

    def _report_health(self) -> None:
        ready = self._session.control.status.state is EngineState.READY
        self._health.serving(ready and self._session.connected and self._leaving is None)

    # --- start to exit --------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Run until the executor ends and return its exit status.  The reason is logged."""
        self._lag.start()
        self._tasks.start(self._session.run(), name="session")
        self._starting = asyncio.get_running_loop().create_task(self._start_engine(), name="engine-start")
        death = asyncio.get_running_loop().create_task(self._watch_tasks(), name="watch")
        try:
            exit = await self._exit
            if exit.message:
                log.error("%s", exit.message)
            if exit.status in (Exit.ENGINE_DIED, Exit.ENGINE_FAILED_TO_START, Exit.DEFECT):
                await self._report_failure(exit)
            return exit.status
        finally:
            await self._end(death, self._starting, self._leaving)

    async def _watch_tasks(self) -> None:
        died: TaskDied = await self._tasks.failure()
        if self._leaving is not None and died.task_name == "session" and died.__cause__ is None:
            return  # the session is over because the executor leaves
        if isinstance(died.__cause__, RegistrationRefused):
            self._decide(Exit(status=Exit.REFUSED, message=f"every scheduler refused this executor: {died.__cause__}"))
            return
        log.error("%s", died, exc_info=died.__cause__)
        self._decide(Exit(status=Exit.DEFECT, message=str(died)))

    async def _report_failure(self, exit: Exit) -> None:
        """Report the failure to the scheduler, which then need not wait for the lease to end."""
        status = EngineStatus(state=EngineState.FAILED, message=exit.message)
        self._session.control.set_status(status)
        self._report_health()
        self.attempts.draining = True
        self.attempts.end_all(EndCause.FAILED, exit.message)
        try:
            async with asyncio.timeout(REPORT_FAILURE_TIMEOUT_S):
                await self._session.wait_connected()
                await self._drain.settle()
                await self._session.leave(exit.message)
        except TimeoutError:
            log.warning("the failure could not be reported to a scheduler in %g s", REPORT_FAILURE_TIMEOUT_S)

    async def _end(self, *tasks: asyncio.Task[None] | None) -> None:
        self._lag.stop()
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._tasks.stop()
        await self._releases.stop()
        if self._engine is None:
            return
        try:
            async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                await self._engine.shutdown()
        except TimeoutError:
            log.error("the engine did not shut down in %g s", SHUTDOWN_TIMEOUT_S)

    # --- the engine -------------------------------------------------------------------------------------------------

    async def _start_engine(self) -> None:
        try:
            await self._sleep.may_start()
            self._engine = await self._factory.start(self._report_progress)
            if self._takes_turns and not self._engine.facts.can_sleep:
                raise EngineError("device_group: the engine takes turns on its device, and cannot sleep")
            text = await asyncio.to_thread(TextSource, self._engine.facts.tokenizer)
        except (ModelError, EngineError) as error:
            self._decide(Exit(status=Exit.ENGINE_FAILED_TO_START, message=str(error)))
            return
        except Exception as error:
            log.error("the engine could not be started", exc_info=error)
            message = f"the engine could not be started: {error!r}"
            self._decide(Exit(status=Exit.ENGINE_FAILED_TO_START, message=message))
            return
        self._serve(self._engine, text)

    def _serve(self, engine: Engine, text: TextSource) -> None:
        self.attempts.serve(AttemptServices(engine=engine, text=text, outbox=self._outbox, on_dead=self._engine_died))
        self._meter.watch(engine)
        self._session.cache_reports.watch(engine)
        self._releases.serve(engine)
        self._tasks.start(self._adapters.run(engine), name="adapters")
        if engine.facts.can_sleep:
            self._tasks.start(self._sleep.run(engine), name="sleep")
        self._session.text_source = text
        self._session.control.set_status(
            EngineStatus(
                state=EngineState.READY,
                progress=1.0,
                message=f"{engine.facts.model} is ready",
                facts=engine.facts,
                tokenizer_hash=text.hash,
            )
        )
        log.info("ready: %s on %s %s", engine.facts.model, engine.facts.engine, engine.facts.engine_version)
        self._session.load_changed()
        self._report_health()
        self._tasks.start(self._watch_engine(engine), name="engine-health")

    def _report_progress(self, state: EngineState, progress: float | None, message: str) -> None:
        """Report the engine's stage.  READY is reported later, with the engine's facts."""
        if state in (EngineState.READY, EngineState.FAILED):
            return
        now = asyncio.get_running_loop().time()
        changed = state is not self._session.control.status.state
        if not changed and now - self._reported_at < PROGRESS_GAP_S:
            return
        self._reported_at = now
        (log.info if changed else log.debug)("%s", message or state.value)
        self._session.control.set_status(EngineStatus(state=state, progress=progress, message=message))

    async def _watch_engine(self, engine: Engine) -> None:
        while True:
            try:
                async with asyncio.timeout(HEALTH_TIMEOUT_S):
                    await engine.check_health()
            except TimeoutError:
                log.warning("the engine did not answer its health check in %g s", HEALTH_TIMEOUT_S)
            except EngineDeadError as error:
                self._engine_died(error)
            self._check_progress(engine)
            await asyncio.sleep(HEALTH_INTERVAL_S)

    def _check_progress(self, engine: Engine) -> None:
        """End an engine that stands still, where others wait for the memory of its device."""
        if self._stuck is None:
            return
        other_work = "an adapter that is loaded or unloaded" if self._adapters.working else ""
        if why := self._stuck.look(engine.load(), asyncio.get_running_loop().time(), other_work=other_work):
            self._engine_died(EngineDeadError(f"{why}, and shares its device with others"))
