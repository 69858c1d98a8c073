"""Builds the scheduler's objects from its configuration.  The only module that imports every room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from sage_common.clock import AsyncioClock, Clock
from sage_common.tasks import TaskDied, WatchedTasks
from sage_wire.health import HealthServicer
from scheduler_svc.access.audit import Audit
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.adoption.adoption import Adoption
from scheduler_svc.control.adoption.handing_over import handed_over
from scheduler_svc.control.adoption.proofs import Proofs
from scheduler_svc.control.adoption.restoration import Restoration
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.dispatcher import Dispatcher
from scheduler_svc.control.attempts.executor_links import ExecutorLinks
from scheduler_svc.control.attempts.handoffs import Handoffs
from scheduler_svc.control.attempts.instance_events import InstanceEvents
from scheduler_svc.control.attempts.kv_releases import KvReleases
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.attempts.warm_ups import WarmUps
from scheduler_svc.control.detached.detached_work import DetachedWork
from scheduler_svc.control.instances.fleet_observer import NULL_FLEET_OBSERVER, FleetObserver
from scheduler_svc.control.instances.sessions import Sessions
from scheduler_svc.control.instances.watchdog import Watchdog
from scheduler_svc.control.journal.detached import DetachedStore
from scheduler_svc.control.journal.fleet_decisions import restore as restore_fleet_decisions
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.leadership.standing import SchedulerState, Standing
from scheduler_svc.control.leadership.term import Term
from scheduler_svc.control.leadership.term_clock import TermClock
from scheduler_svc.control.requests.explain import Explainer
from scheduler_svc.control.requests.intake import Intake
from scheduler_svc.control.requests.kept_ends import KeptEnds
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer
from scheduler_svc.control.requests.receipts import Receipts, ReceiptSigner
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.control.watching.fleet_statistics import FleetStatistics
from scheduler_svc.control.watching.fleet_watch import FleetWatch
from scheduler_svc.domain.errors import JournalUnavailable, Recovering, SchedulerError, ShuttingDown
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.doors import Doors, server_tls
from scheduler_svc.recording.recording import Recording, RecordingSettings
from scheduler_svc.recording.usage.usage_file import UsageFile
from scheduler_svc.recording.usage.usage_recorder import UsageRecorder, UsageTargets
from scheduler_svc.room_settings import (
    detached_settings,
    intake_settings,
    journal_settings,
    record_limits,
    scheduler_settings,
    session_settings,
    usage_file,
    usage_retention,
)
from scheduler_svc.storage.adoption_key import AdoptionKey
from scheduler_svc.storage.journal.decision_store import JournalDecisionStore
from scheduler_svc.storage.journal.detached_store import JournalDetachedStore
from scheduler_svc.storage.journal.errors import UnusableJournal
from scheduler_svc.storage.journal.journal import Journal
from scheduler_svc.storage.journal.maintenance import Maintenance
from scheduler_svc.storage.journal.usage_store import JournalUsageStore
from scheduler_svc.storage.state import State
from scheduler_svc.storage.state_directory import StateDirectory
from scheduler_svc.telemetry.journal import JournalReader
from scheduler_svc.telemetry.outcomes import reason_of
from scheduler_svc.telemetry.service import SchedulerTelemetry
from scheduler_svc.tokenization.store import TokenizerStore
from scheduler_svc.transport.admin_servicer import AdminServicer
from scheduler_svc.transport.client_sessions.session_servicer import SessionServicer
from scheduler_svc.transport.detached_records import DetachedRecords
from scheduler_svc.transport.detached_servicer import DetachedServicer
from scheduler_svc.transport.executor_servicer import ExecutorServicer
from scheduler_svc.transport.health import HealthReporter
from scheduler_svc.transport.inference_servicer import InferenceServicer
from scheduler_svc.transport.journal_answers import JournalAnswers
from scheduler_svc.transport.leader_gate import LeaderGate
from scheduler_svc.transport.model_files import ModelFiles
from scheduler_svc.transport.server import Services
from scheduler_svc.transport.signed_receipts import SignedReceipts
from scheduler_svc.transport.tokenizer_upload import TokenizerUpload
from scheduler_svc.transport.usage_answers import UsageAnswers

log = logging.getLogger(__name__)

DRAINED_GRACE_S = 1.0
"""Seconds that calls have to end by themselves once their requests have ended."""

HAND_OVER_WAIT_S = 0.5
"""After how many seconds a client is asked to come again when a scheduler hands over."""

HAND_OVER_GRACE_S = 0.1
"""The same while requests go on with the next scheduler: their readers are to look for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierScheduler:
    """What an earlier scheduler left, and what is left for the next one."""

    instances: Mapping[str, EarlierInstance] = field(default_factory=dict)  # that had a session
    proofs: Proofs | None = None  # None: executors hold nothing for the next scheduler
    receipts: ReceiptSigner | None = None  # None: clients hold nothing for the next scheduler
    wall: Callable[[], float] = time.time  # seconds since 1970, which receipts count in
    keep_instances: Callable[[Mapping[str, EarlierInstance]], None] = lambda instances: None
    """Told which instances have a session, whenever that changes."""


NO_EARLIER_SCHEDULER = EarlierScheduler()
"""Nothing is left, and nothing will be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlPlane:
    """The objects of ``control``, connected to each other and to nothing else; tests drive them on a virtual clock."""

    scheduler: Scheduler
    clock: Clock
    requests: RequestTable
    attempts: AttemptTable
    runner: RequestRunner
    kv_releases: KvReleases
    sessions: Sessions
    adoption: Adoption
    recovery: Recovery
    dispatcher: Dispatcher
    intake: Intake
    models: ModelDirectory
    watchdog: Watchdog
    warm_ups: WarmUps
    loop_lag: LoopLag
    explainer: Explainer
    fleet_watch: FleetWatch
    wakeup: Wakeup
    decisions: OperatorDecisions
    epoch: int
    detached: DetachedWork | None  # None: no journal
    restoration: Restoration | None
    wall_clock: Callable[[], float]

    def wall_s(self) -> float:
        """Return seconds since 1970 at the control clock's zero."""
        return self.wall_clock() - self.clock.now()

    def handed_over(self) -> Mapping[str, EarlierInstance]:
        """Return what the next scheduler is to know of the instances.  Call once all sessions are ended."""
        models = self.sessions.models
        return handed_over(models, self.requests, self.intake.ends, self.recovery, self.adoption)

    async def load_detached(self) -> None:
        """Read the detached work that an earlier scheduler left.  Call before anything is accepted.

        Raises JournalUnavailable.
        """
        if self.detached is not None and self.restoration is not None:
            self.restoration.begin(await self.detached.load())

    async def keep_detached(self) -> None:
        """Go on with the detached work of an earlier scheduler, and delete results whose time is over.

        Both at once: a full journal takes nothing of what goes on until something is deleted.
        """
        if self.detached is not None and self.restoration is not None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.restoration.run())
                tasks.create_task(self.detached.expire())


def build_control(
    config: SchedulerConfig,
    clock: Clock,
    tokenizers: Tokenizers,
    *,
    epoch: int,
    observe: Callable[[Scheduler], Observer] = lambda scheduler: NULL_OBSERVER,
    observe_fleet: FleetObserver = NULL_FLEET_OBSERVER,
    earlier: EarlierScheduler = NO_EARLIER_SCHEDULER,
    decisions: OperatorDecisions | None = None,
    detached_store: DetachedStore | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> ControlPlane:
    """Build the objects of ``control``.  ``observe`` makes the observer of requests; ``observe_fleet`` is of instances.

    ``earlier``: what an earlier scheduler left.  ``decisions``: of operators; None: they end with the process.
    ``detached_store``: where detached work is kept; None: nowhere.  ``wall_clock``: seconds since 1970.

    Raises:
        UnknownPolicy: no policy has the configured name.
        PolicyLoadError: an installed policy cannot be loaded.
    """
    decisions = decisions if decisions is not None else OperatorDecisions(clock)
    scheduler = Scheduler(scheduler_settings(config), PolicyCatalogue.with_plugins())
    statistics = observer = FleetStatistics(observe(scheduler), scheduler.settings.default_targets, clock.now())
    wakeup, loop_lag = Wakeup(), LoopLag(clock, observer.lagged)
    configured = frozenset(config.models)

    requests = RequestTable(scheduler, clock, record_limits(config))
    models = ModelDirectory(scheduler, clock, tokenizers, configured, waiting_limit=config.queue.limit_per_model)
    recovery = Recovery(clock, earlier.instances, config.recovery.limit_s, epoch=epoch)
    ends = KeptEnds(scheduler, clock, on=earlier.proofs is not None)
    codec, detached = DetachedRecords(), None
    if detached_store is not None:
        detached = DetachedWork(detached_store, codec, clock, wall_clock, detached_settings(config), epoch=epoch)
        detached.on_end(ends.recorded)
        detached.on_removal(requests.forget_kept)
        ends.unrecorded = lambda live: live.journaled and not live.end_is_published
    intake = Intake(
        scheduler,
        clock,
        requests,
        tokenizers,
        models,
        loop_lag,
        wakeup,
        intake_settings(config),
        recovery,
        ends,
        Receipts(earlier.receipts, clock, recovery, epoch=epoch, wall=earlier.wall),
        observer,
        detached,
    )

    links, events = ExecutorLinks(), InstanceEvents()
    attempts = AttemptTable(links, clock, events)
    runner = RequestRunner(
        scheduler, clock, requests, attempts, events, wakeup, epoch=epoch, max_attempts=config.queue.max_attempts
    )
    kv_releases = KvReleases(scheduler, clock, links, runner.release)
    handoffs = Handoffs(runner, kv_releases)
    warm_ups = WarmUps(scheduler, clock, attempts, epoch=epoch)

    restoration = None
    if detached is not None:
        restoration = Restoration(detached, codec, clock, requests, runner, recovery, observer)
    adoption = Adoption(
        scheduler,
        clock,
        requests,
        attempts,
        runner,
        intake.grace,
        recovery,
        observer,
        on=earlier.proofs is not None,
        epoch=epoch,
        restoration=restoration,
    )
    sessions = Sessions(
        scheduler,
        clock,
        attempts,
        handoffs,
        links,
        tokenizers,
        loop_lag,
        wakeup,
        models,
        session_settings(config),
        epoch=epoch,
        observer=observe_fleet,
        adoption=adoption,
        ends=ends,
        decisions=decisions,
        seen=lambda models: earlier.keep_instances(
            {**recovery.awaited, **{name: EarlierInstance(model=model) for name, model in models.items()}}
        ),
    )
    recovery.on_end(sessions.tell_seen)
    events.subscribe(sessions)
    watchdog = Watchdog(
        scheduler,
        clock,
        requests,
        sessions,
        warm_ups,
        wakeup,
        orphan_timeout_s=config.queue.orphan_timeout_s,
        configured=configured,
    )
    return ControlPlane(
        scheduler=scheduler,
        clock=clock,
        requests=requests,
        attempts=attempts,
        runner=runner,
        kv_releases=kv_releases,
        sessions=sessions,
        adoption=adoption,
        recovery=recovery,
        dispatcher=Dispatcher(runner, handoffs, wakeup, observer),
        intake=intake,
        models=models,
        watchdog=watchdog,
        warm_ups=warm_ups,
        loop_lag=loop_lag,
        explainer=Explainer(scheduler, clock, requests),
        fleet_watch=FleetWatch(scheduler, clock, requests, statistics),
        wakeup=wakeup,
        decisions=decisions,
        epoch=epoch,
        detached=detached,
        restoration=restoration,
        wall_clock=wall_clock,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead:
    """What a scheduler has of the process in which it leads for one term."""

    term: Term
    state: State
    journal: Journal
    release: Callable[[], Awaitable[None]]  # gives the lease back
    health: HealthServicer
    gate: LeaderGate
    trouble: Callable[[], str]  # what is wrong with the database of the lease


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
        self._state: State | None = None
        if lead is not None:
            self._state = lead.state
        elif config.state_dir is not None:
            self._state = StateDirectory(config.state_dir)
        self._journal = lead.journal if lead is not None else _journal(config)
        self._proofs = AdoptionKey(self._state.secret) if self._state is not None else None
        self._tokenizers = TokenizerStore()
        # Nanoseconds since 1970: larger at every start, also after a crash, without a file to keep it in.
        epoch = self._state.epoch if self._state is not None else time.time_ns()
        self.telemetry = SchedulerTelemetry(config.telemetry, epoch=epoch, tls=server_tls(config))
        clock = self._clock = TermClock(AsyncioClock(), lambda: self._lost)
        self.recording = _recording(config, clock)
        self.control = build_control(
            config,
            clock,
            self._tokenizers,
            epoch=epoch,
            observe=self.telemetry.observer,
            observe_fleet=self.recording.recorder if self.recording is not None else NULL_FLEET_OBSERVER,
            earlier=self._earlier(),
            decisions=OperatorDecisions(clock, JournalDecisionStore(self._journal) if self._journal else None),
            detached_store=JournalDetachedStore(self._journal) if self._journal is not None else None,
        )
        if self.recording is not None:
            self.control.requests.on_end(self.recording.recorder.request_ended)
        self._maintenance = Maintenance(self._journal) if self._journal is not None else None
        self.usage = self._usage_recorder(clock)
        if self.usage is not None:
            self.control.requests.on_end(self._record_usage)
        self._tasks = WatchedTasks()
        health = lead.health if lead is not None else None
        self._health = HealthReporter(self.control.scheduler, self.control.clock, self._maintenance, health)
        self._leaving = False
        self._audit = Audit()
        self.call_ended = self.telemetry.call_ended()
        self._client_sessions = SessionServicer(
            self.control.intake,
            self.control.scheduler,
            clock,
            self._audit,
            epoch=epoch,
            leader_lease_s=config.leader_lease_s,
            observer=self.telemetry.client_sessions,
            on_end=self.call_ended,
        )
        self._doors: Doors | None = None  # its own ones

    def _earlier(self) -> EarlierScheduler:
        state = self._state
        if state is None:
            return NO_EARLIER_SCHEDULER
        assert self._proofs is not None
        return EarlierScheduler(
            instances=state.instances,
            proofs=self._proofs,
            receipts=SignedReceipts(self._proofs),
            keep_instances=state.keep_instances,
        )

    def _usage_recorder(self, clock: Clock) -> UsageRecorder | None:
        """Return what gathers usage records; None where neither a journal nor a file takes them."""
        file = usage_file(self._config)
        targets = UsageTargets(
            store=JournalUsageStore(self._journal) if self._journal is not None else None,
            file=UsageFile(file) if file is not None else None,
            retention=usage_retention(self._config),
        )
        if targets.store is None and targets.file is None:
            return None
        return UsageRecorder(clock, targets, reason_of, wall=time.time)

    def _record_usage(self, live: LiveRequest, reason: str) -> None:
        """Have a request recorded that ended, unless the next leader has it and records it."""
        if self.usage is not None and not self._lost:
            self.usage.request_ended(live, reason)

    @property
    def _lost(self) -> bool:
        """Whether this scheduler leads no more."""
        return self._lead is not None and self._lead.term.over

    async def start(self) -> None:
        """Serve, and start the background tasks.

        Raises:
            ListenError: a configured address cannot be listened on, or a file with certificates, keys or public keys
                cannot be used.
            UnusableJournal: operators' decisions or detached work cannot be read.
            CannotServe: the metrics address cannot be served.
            CannotRecord: the recording's file, or that of usage records, cannot be written.
        """
        control = self.control
        if self.recording is not None:
            self.recording.start()
        if self._journal is not None:
            self._journal.start()
        await self._restore_decisions()
        await self._load_detached()
        if self.usage is not None:
            self.usage.start()
        if self._lead is None:
            self._doors = Doors(self._config, self._services(), self._audit, self.call_ended)
        recorded = self.recording.counts if self.recording is not None else dict
        self.telemetry.start(
            control.scheduler,
            control.clock,
            control.requests,
            recorded=recorded,
            restart=lambda: control.adoption.figures,
            journal=JournalReader(self._maintenance, self.usage.counts if self.usage is not None else dict),
        )
        if self._doors is not None:
            await self._doors.start()
            self._tasks.start(self._doors.reloader.run(), name="file reloads")
        elif self._lead is not None:
            self._lead.gate.open(self._services(), self._lead.term)
        self._tasks.start(control.dispatcher.run(), name="dispatcher")
        self._tasks.start(control.watchdog.run(), name="watchdog")
        if control.detached is not None and control.restoration is not None:
            self._tasks.start(control.detached.run(), name="checkpoints of detached work")
            self._tasks.start(control.keep_detached(), name="detached work")
        self._tasks.start(control.loop_lag.run(), name="loop lag")
        self._tasks.start(control.decisions.run(), name="operators' decisions")
        if self.usage is not None:
            self._tasks.start(self.usage.run(), name="usage")
        self._tasks.start(self._health.run(), name="health")

    async def _restore_decisions(self) -> None:
        """Put in force what operators decided under an earlier scheduler.  Raises UnusableJournal."""
        control = self.control
        try:
            await control.decisions.load()
        except JournalUnavailable as error:
            raise UnusableJournal(f"journal: operators' decisions cannot be read: {error.why}") from error
        restore_fleet_decisions(control.decisions, control.scheduler, control.clock.now())

    async def _load_detached(self) -> None:
        """Read the detached work of an earlier scheduler.  Raises UnusableJournal."""
        try:
            await self.control.load_detached()
        except JournalUnavailable as error:
            raise UnusableJournal(f"journal: detached work cannot be read: {error.why}") from error

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

    async def stop(self) -> None:
        """Refuse new requests, leave running ones to the next scheduler or let them finish, then end everything."""
        self._leaving = True
        if self._lead is None:
            self._health.leave()
        elif self._lost:
            self._health.stand_by()
        drains = self._state is None or self._config.recovery.on_stop == "drain"
        if not drains or not await self._drain():
            await self._hand_over()
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
        await self.telemetry.close()
        if self.recording is not None:
            await self.recording.close()
        self._tokenizers.close()

    async def _hand_over(self) -> None:
        """Leave running requests to the next scheduler, and have their clients look for it."""
        control, state = self.control, self._state
        assert state is not None, "without it there is no next scheduler"
        log.info("leaving %d requests to the next scheduler", len(control.requests))
        why = self._handing_over()
        control.intake.close(why)
        if control.detached is not None:
            control.detached.freeze()
        control.sessions.end_all("the scheduler hands over")  # first: what ends from here on is not told to executors
        state.keep_instances(control.handed_over())
        state.freeze()
        self._client_sessions.close(why)
        await self._stop_serving(HAND_OVER_GRACE_S)

    def _handing_over(self) -> SchedulerError:
        if self._lead is None:
            return Recovering(HAND_OVER_WAIT_S, "the scheduler hands over to the next one")
        return self._lead.term.error()

    async def _stop_serving(self, grace_s: float) -> None:
        """End all calls, which have ``grace_s`` seconds to do so by themselves."""
        if self._doors is not None:
            await self._doors.stop(grace_s)
        elif self._lead is not None:
            await self._lead.gate.close(self._lead.term.error, grace_s)

    async def _drain(self) -> bool:
        """Let running requests finish within the drain timeout, end the others, and then all sessions.

        Returns False when another scheduler leads, or none, before that is done: the requests go on with the next one.
        """
        control = self.control
        control.intake.close()
        try:
            async with asyncio.timeout(self._config.drain_timeout_s):
                while not self._lost and any(not live.journaled for live in control.requests):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning("%d requests did not finish within the drain timeout", len(control.requests))
            for live in control.requests:
                if not live.journaled:  # what the journal has goes on with the next scheduler
                    control.requests.end(live, ShuttingDown())
        if self._lost:
            return False
        if control.detached is not None:
            control.detached.freeze()
        self._client_sessions.close()
        control.sessions.end_all("the scheduler is shutting down")
        await self._stop_serving(DRAINED_GRACE_S)
        return True

    def _services(self) -> Services:
        control = self.control
        return Services(
            inference=InferenceServicer(
                control.intake,
                control.scheduler,
                self._client_sessions,
                DetachedServicer(control.intake, control.loop_lag, control.detached, control.wall_s),
                ModelFiles(control.scheduler, control.models, self._tokenizers, control.clock),
                epoch=control.epoch,
            ),
            executor=ExecutorServicer(
                control.sessions,
                control.attempts,
                control.kv_releases,
                control.intake.ends,
                lambda: TokenizerUpload(self._tokenizers, control.models.changed),
                epoch=control.epoch,
                proofs=self._proofs,
                leader_lease_s=self._config.leader_lease_s,
            ),
            admin=AdminServicer(
                control.scheduler,
                control.clock,
                control.sessions,
                control.explainer,
                control.fleet_watch,
                control.wakeup,
                control.decisions,
                UsageAnswers(JournalUsageStore(self._journal) if self._journal is not None else None),
                self._journal_answers(),
                epoch=control.epoch,
                standing=lambda: self.standing,
            ),
            health=self._health.servicer,
        )

    def _journal_answers(self) -> JournalAnswers:
        journal = self._journal
        return JournalAnswers(
            self._maintenance,
            JournalUsageStore(journal) if journal is not None else None,
            usage_retention(self._config),
            self.usage.counts if self.usage is not None else dict,
        )


def _recording(config: SchedulerConfig, clock: Clock) -> Recording | None:
    recording = config.recording
    if recording.file is None:
        return None
    settings = RecordingSettings(
        file=recording.file, max_bytes=recording.max_bytes, files=recording.files, tenants=recording.tenants
    )
    return Recording(settings, clock)


def _journal(config: SchedulerConfig) -> Journal | None:
    settings = journal_settings(config)
    return Journal(settings) if settings is not None else None
