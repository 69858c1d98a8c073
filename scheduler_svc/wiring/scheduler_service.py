"""The scheduler as a service."""

from __future__ import annotations

import time

from sage_common.clock import AsyncioClock
from sage_common.tasks import TaskDied, WatchedTasks
from scheduler_svc.access.audit import Audit
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.batches.figures import NO_BATCHES
from scheduler_svc.control.instances.fleet_observer import NULL_FLEET_OBSERVER
from scheduler_svc.control.journal.fleet_decisions import restore as restore_fleet_decisions
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.control.leadership.standing import SchedulerState, Standing
from scheduler_svc.control.leadership.term_clock import TermClock
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.storage.adoption_key import AdoptionKey
from scheduler_svc.storage.journal.batch_store import JournalBatchStore
from scheduler_svc.storage.journal.decision_store import JournalDecisionStore
from scheduler_svc.storage.journal.detached_store import JournalDetachedStore
from scheduler_svc.storage.journal.errors import read_at_start
from scheduler_svc.storage.journal.maintenance import Maintenance
from scheduler_svc.storage.state import State
from scheduler_svc.storage.state_directory import StateDirectory
from scheduler_svc.telemetry.adapters import AdapterReader
from scheduler_svc.telemetry.batches import BatchReader
from scheduler_svc.telemetry.journal import JournalReader
from scheduler_svc.telemetry.roles import RoleReader
from scheduler_svc.telemetry.scaling import ScalingReader
from scheduler_svc.telemetry.service import SchedulerTelemetry
from scheduler_svc.tokenization.store import TokenizerStore
from scheduler_svc.transport.client_sessions.session_servicer import SessionServicer
from scheduler_svc.transport.health import HealthReporter
from scheduler_svc.transport.scaler_servicer import ScalerServicer
from scheduler_svc.transport.server import Services
from scheduler_svc.wiring.control_plane import build_control
from scheduler_svc.wiring.doors import Doors, server_tls
from scheduler_svc.wiring.earlier_scheduler import earlier_scheduler
from scheduler_svc.wiring.lead import Lead
from scheduler_svc.wiring.leaving import Leaving
from scheduler_svc.wiring.recorders import own_journal, traffic_recording, usage_recorder
from scheduler_svc.wiring.services import admin_servicer, executor_servicer, inference_servicer


class SchedulerService:
    """The scheduler as a service: its gRPC server, its background tasks and its telemetry.

    With a ``Lead`` it is that for one term only, and the servers are the process's.
    """

    def __init__(self, config: SchedulerConfig, lead: Lead | None = None) -> None:
        """Build everything; nothing runs yet.  ``lead``: None: this scheduler is the only one.

        Raises:
            UnknownPolicy: no policy has the configured name.
            PolicyLoadError: an installed policy cannot be loaded.
            UnusableState: the state directory cannot be used.
            UnusableJournal: the journal's database cannot be used.
        """
        self._config = config
        self._lead = lead
        self._state: State | None = lead.state if lead is not None else _own_state(config)
        self._journal = lead.journal if lead is not None else own_journal(config)
        self._maintenance = Maintenance(self._journal) if self._journal is not None else None
        self._proofs = AdoptionKey(self._state.secret) if self._state is not None else None
        self._tokenizers = TokenizerStore()
        # Nanoseconds since 1970: larger at every start, also after a crash, without a file to keep it in.
        epoch = self._state.epoch if self._state is not None else time.time_ns()
        self.telemetry = SchedulerTelemetry(config.telemetry, epoch=epoch, tls=server_tls(config))
        clock = self._clock = TermClock(AsyncioClock(), lambda: self._lost)
        self.recording = traffic_recording(config, clock)
        self.usage = usage_recorder(config, self._journal, clock, self.telemetry.identity)
        self.control = build_control(
            config,
            clock,
            self._tokenizers,
            epoch=epoch,
            observe=self.telemetry.observer,
            observe_fleet=self.recording.recorder if self.recording is not None else NULL_FLEET_OBSERVER,
            earlier=earlier_scheduler(self._state, self._proofs),
            decisions=OperatorDecisions(clock, JournalDecisionStore(self._journal) if self._journal else None),
            detached_store=JournalDetachedStore(self._journal) if self._journal is not None else None,
            batch_store=JournalBatchStore(self._journal) if self._journal is not None else None,
        )
        self._observe_ends()
        self._tasks = WatchedTasks()
        self._leaving = False
        self._audit = Audit()
        self.call_ended = self.telemetry.call_ended()
        self._doors: Doors | None = None  # its own ones
        self._serve(epoch)

    def _observe_ends(self) -> None:
        """Have requests that end written down."""
        if self.recording is not None:
            self.control.requests.on_end(self.recording.recorder.request_ended)
        if self.usage is not None:
            self.control.requests.on_end(self._record_usage)

    def _record_usage(self, live: LiveRequest, reason: str) -> None:
        """Have a request recorded that ended, unless the next leader has it and records it."""
        if self.usage is not None and not self._lost:
            self.usage.request_ended(live, reason)

    def _serve(self, epoch: int) -> None:
        """Build what answers calls, and what ends that."""
        control, lead = self.control, self._lead
        health = lead.health if lead is not None else None
        self._health = HealthReporter(control.scheduler, control.clock, self._maintenance, health)
        self._client_sessions = SessionServicer(
            control.intake,
            control.scheduler,
            control.clock,
            self._audit,
            epoch=epoch,
            leader_lease_s=self._config.leader_lease_s,
            observer=self.telemetry.client_sessions,
            on_end=self.call_ended,
        )
        term = lead.term if lead is not None else None
        self._end = Leaving(control, self._client_sessions, self._state, term, self._stop_serving)

    @property
    def _lost(self) -> bool:
        """Whether this scheduler leads no more."""
        return self._lead is not None and self._lead.term.over

    # --- the start --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve, and start the background tasks.

        Raises:
            ListenError: a configured address cannot be listened on, or a file with certificates, keys or public keys
                cannot be used.
            UnusableJournal: operators' decisions, detached work or batches cannot be read.
            CannotServe: the metrics address cannot be served.
            CannotRecord: the recording's file, or that of usage records, cannot be written.
        """
        if self.recording is not None:
            self.recording.start()
        if self._journal is not None:
            self._journal.start()
        await self._restore_decisions()
        await self._load_detached()
        await self._load_batches()
        if self.usage is not None:
            self.usage.start()
        if self._lead is None:
            self._doors = Doors(self._config, self._services(), self._audit, self.call_ended)
        self._start_telemetry()
        if self._doors is not None:
            await self._doors.start()
            self._tasks.start(self._doors.reloader.run(), name="file reloads")
        elif self._lead is not None:
            self._lead.gate.open(self._services(), self._lead.term)
        self._start_tasks()

    async def _restore_decisions(self) -> None:
        """Put in force what operators decided under an earlier scheduler.  Raises UnusableJournal."""
        control = self.control
        with read_at_start("operators' decisions"):
            await control.decisions.load()
        restore_fleet_decisions(control.decisions, control.scheduler, control.clock.now())
        control.adapters.restore()

    async def _load_detached(self) -> None:
        """Read the detached work of an earlier scheduler.  Raises UnusableJournal."""
        with read_at_start("detached work"):
            await self.control.load_detached()

    async def _load_batches(self) -> None:
        """Read the batches and files of an earlier scheduler.  Raises UnusableJournal."""
        if self.control.batches is not None:
            with read_at_start("batches"):
                await self.control.batches.load()

    def _start_telemetry(self) -> None:
        control = self.control
        self.telemetry.start(
            control.scheduler,
            control.clock,
            control.requests,
            recorded=self.recording.counts if self.recording is not None else dict,
            restart=lambda: control.adoption.figures,
            journal=JournalReader(self._maintenance, self.usage.counts if self.usage is not None else dict),
            batches=BatchReader(lambda: control.batches.figures if control.batches is not None else NO_BATCHES),
            scaling=ScalingReader(control.scaling),
            device_groups=control.device_groups,
            roles=RoleReader(control.roles, control.scheduler),
            adapters=AdapterReader(control.adapters),
        )

    def _start_tasks(self) -> None:
        control, start = self.control, self._tasks.start
        start(control.dispatcher.run(), name="dispatcher")
        start(control.watchdog.run(), name="watchdog")
        if control.detached is not None and control.restoration is not None:
            start(control.detached.run(), name="checkpoints of detached work")
            start(control.keep_detached(), name="detached work")
        if control.batches is not None:
            start(control.batches.run(), name="batches")
        if control.scaling.settings.enabled:
            start(control.scaling.run(), name="desired instances")
        if control.roles.settings.automatic:
            start(control.roles.run(), name="automatic roles")
        start(control.loop_lag.run(), name="loop lag")
        start(control.decisions.run(), name="operators' decisions")
        if self.usage is not None:
            start(self.usage.run(), name="usage")
        start(self._health.run(), name="health")

    def _services(self) -> Services:
        config, control = self._config, self.control
        return Services(
            inference=inference_servicer(control, self._client_sessions, self._tokenizers),
            executor=executor_servicer(config, control, self._tokenizers, self._proofs),
            admin=admin_servicer(config, control, self._journal, self._maintenance, self.usage, lambda: self.standing),
            scaler=ScalerServicer(control.scaling),
            health=self._health.servicer,
        )

    # --- while it serves --------------------------------------------------------------------------

    @property
    def ports(self) -> dict[str, int]:
        """The ports that are served, by the setting that names the address."""
        return self._doors.ports if self._doors is not None else {}

    @property
    def port(self) -> int:
        """The port of ``listen``; 0 before it is served."""
        return self.ports.get("listen", 0)

    def reload(self) -> None:
        """Read certificates, keys and public keys again, whether their files changed or not."""
        if self._doors is not None:
            self._doors.reload()

    @property
    def standing(self) -> Standing:
        """What this scheduler does now."""
        control, lead = self.control, self._lead
        state = SchedulerState.RECOVERING if control.recovery.open else SchedulerState.LEADING
        troubles = [self._journal.trouble if self._journal is not None else "", lead.trouble() if lead else ""]
        return Standing(
            state=SchedulerState.LEAVING if self._leaving or self._lost else state,
            epoch=control.epoch,
            lease_s=self._config.leader_lease_s,
            lease_left_s=lead.term.left_s if lead is not None else 0.0,
            troubles=tuple(each for each in troubles if each),
        )

    async def failure(self) -> TaskDied:
        """Wait until a background task dies, which ends the service, and return how it died."""
        return await self._tasks.failure()

    # --- the end ----------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Refuse new requests, leave running ones to the next scheduler or let them finish, then end everything."""
        self._leaving = True
        if self._lead is None:
            self._health.leave()
        elif self._lost:
            self._health.stand_by()
        drains = self._state is None or self._config.recovery.on_stop == "drain"
        if not drains or not await self._end.drain(self._config.drain_timeout_s):
            await self._end.hand_over()
        self._clock.end()  # instances without a session and requests that wait are the next scheduler's
        await self._tasks.stop()
        if self.usage is not None:
            await self.usage.close()
        if self._journal is not None:
            await self._journal.close()
        if self._state is not None:
            await self._state.close()
        if self._lead is not None:
            await self._lead.release()  # the next leader need not wait for the rest
        if self.usage is not None:
            await self.usage.close_log()
        await self.telemetry.close()
        if self.recording is not None:
            await self.recording.close()
        self._tokenizers.close()

    async def _stop_serving(self, grace_s: float) -> None:
        """End all calls, which have ``grace_s`` seconds to do so by themselves."""
        if self._doors is not None:
            await self._doors.stop(grace_s)
        elif self._lead is not None:
            await self._lead.gate.close(self._lead.term.error, grace_s)


def _own_state(config: SchedulerConfig) -> State | None:
    return StateDirectory(config.state_dir) if config.state_dir is not None else None
