"""Configuration → objects.  The only place that knows every room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from sage_telemetry.prometheus import PageTls
from scheduler_svc.asyncio_clock import AsyncioClock
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.dispatcher import Dispatcher
from scheduler_svc.control.attempts.warm_ups import WarmUps
from scheduler_svc.control.instances.registration import PROBATION_MAX_S, SessionSettings
from scheduler_svc.control.instances.sessions import Sessions
from scheduler_svc.control.instances.watchdog import Watchdog
from scheduler_svc.control.requests.explain import Explainer
from scheduler_svc.control.requests.intake import Intake, IntakeSettings
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer
from scheduler_svc.control.requests.request_table import RecordLimits, RequestTable
from scheduler_svc.control.requests.tokenizers import Tokenizers
from scheduler_svc.control.supervisor import Supervisor
from scheduler_svc.control.timing.clock import ControlClock
from scheduler_svc.control.timing.loop_lag import LoopLag
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.control.watching.fleet_statistics import FleetStatistics
from scheduler_svc.control.watching.fleet_watch import FleetWatch
from scheduler_svc.domain.errors import ShuttingDown
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.telemetry.service import SchedulerTelemetry
from scheduler_svc.tokenization.store import TokenizerStore
from scheduler_svc.transport.admin_servicer import AdminServicer
from scheduler_svc.transport.executor_servicer import ExecutorServicer
from scheduler_svc.transport.health import HealthReporter
from scheduler_svc.transport.inference_servicer import InferenceServicer
from scheduler_svc.transport.server import Services, Tls, build_server, listen
from scheduler_svc.transport.tokenizer_upload import TokenizerUpload

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlPlane:
    """Control's objects, wired to each other and to nothing else: what tests drive under a virtual clock."""

    scheduler: Scheduler
    clock: ControlClock
    lifecycle: RequestTable
    assignments: AttemptTable
    sessions: Sessions
    dispatcher: Dispatcher
    intake: Intake
    models: ModelDirectory
    watchdog: Watchdog
    warm_ups: WarmUps
    pacer: LoopLag
    explainer: Explainer
    fleet_watch: FleetWatch
    wakeup: Wakeup
    epoch: int


def build_control(
    config: SchedulerConfig,
    clock: ControlClock,
    tokenizers: Tokenizers,
    *,
    epoch: int,
    observe: Callable[[Scheduler], Observer] = lambda scheduler: NULL_OBSERVER,
) -> ControlPlane:
    """Raises UnknownPolicy, PolicyLoadError."""
    scheduler = Scheduler(_scheduler_settings(config), PolicyCatalogue.with_plugins())
    tally = observer = FleetStatistics(observe(scheduler), scheduler.settings.default_targets, clock.now())
    wakeup, pacer = Wakeup(), LoopLag(clock, observer)
    record = config.record
    lifecycle = RequestTable(
        scheduler,
        clock,
        RecordLimits(requests=record.requests, output_tokens=record.output_tokens, candidates=record.candidates),
    )
    assignments = AttemptTable(scheduler, clock, lifecycle, wakeup, epoch=epoch, max_attempts=config.queue.max_attempts)
    models = ModelDirectory(scheduler, clock, tokenizers, frozenset(config.models))
    sessions = Sessions(
        scheduler, clock, assignments, tokenizers, pacer, wakeup, models, _session_settings(config), epoch=epoch
    )
    assignments.attach_sessions(sessions)
    warm_ups = WarmUps(scheduler, clock, assignments, sessions, epoch=epoch)
    intake = Intake(scheduler, clock, lifecycle, tokenizers, models, pacer, wakeup, _intake_settings(config), observer)
    return ControlPlane(
        scheduler=scheduler,
        clock=clock,
        lifecycle=lifecycle,
        assignments=assignments,
        sessions=sessions,
        dispatcher=Dispatcher(scheduler, clock, lifecycle, assignments, wakeup, observer),
        intake=intake,
        models=models,
        watchdog=Watchdog(
            scheduler,
            clock,
            lifecycle,
            sessions,
            warm_ups,
            wakeup,
            orphan_timeout_s=config.queue.orphan_timeout_s,
            configured=frozenset(config.models),
        ),
        warm_ups=warm_ups,
        pacer=pacer,
        explainer=Explainer(scheduler, clock, lifecycle),
        fleet_watch=FleetWatch(scheduler, clock, lifecycle, tally),
        wakeup=wakeup,
        epoch=epoch,
    )


class SchedulerService:
    """The running service."""

    def __init__(self, config: SchedulerConfig) -> None:
        """Raises UnknownPolicy, PolicyLoadError."""
        self._config = config
        self._tokenizers = TokenizerStore()
        # Nanoseconds since 1970: larger at every start, also after a crash, without a file to keep it in.
        epoch = time.time_ns()
        self.telemetry = SchedulerTelemetry(config.telemetry, epoch=epoch, tls=_page_tls(config))
        self.control = build_control(
            config, AsyncioClock(), self._tokenizers, epoch=epoch, observe=self.telemetry.observer
        )
        self._supervisor = Supervisor()
        self._health = HealthReporter(self.control.scheduler, self.control.clock)
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Raises ListenError, CannotServe."""
        control, config = self.control, self._config
        self._server = build_server(self._services())
        self.port = listen(self._server, config.listen, _tls(config), insecure=config.insecure)
        self.telemetry.start(control.scheduler, control.clock, control.lifecycle)
        await self._server.start()
        self._supervisor.start("dispatcher", control.dispatcher.run())
        self._supervisor.start("watchdog", control.watchdog.run())
        self._supervisor.start("pacer", control.pacer.run())
        self._supervisor.start("health", self._health.run())

    async def wait_for_death(self) -> None:
        """Raises TaskDied when a background task ends."""
        await self._supervisor.wait_for_death()

    async def stop(self) -> None:
        """Refuse what is new, let what runs finish within the drain timeout, then end it all."""
        control, server = self.control, self._server
        control.intake.close()
        await self._health.leave()
        try:
            async with asyncio.timeout(self._config.drain_timeout_s):
                while len(control.lifecycle):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning("%d requests did not finish within the drain timeout", len(control.lifecycle))
            for live in control.lifecycle:
                control.lifecycle.end(live, ShuttingDown())
        control.sessions.end_all("the scheduler is shutting down")
        if server is not None:
            await server.stop(grace=1.0)
        await self._supervisor.stop()
        await self.telemetry.close()
        self._tokenizers.close()

    def _services(self) -> Services:
        control = self.control
        return Services(
            inference=InferenceServicer(control.intake, control.scheduler, epoch=control.epoch),
            executor=ExecutorServicer(
                control.sessions,
                control.assignments,
                lambda: TokenizerUpload(self._tokenizers, control.models.changed),
                epoch=control.epoch,
            ),
            admin=AdminServicer(
                control.scheduler,
                control.clock,
                control.sessions,
                control.explainer,
                control.fleet_watch,
                control.wakeup,
                epoch=control.epoch,
            ),
            health=self._health,
        )


def _scheduler_settings(config: SchedulerConfig) -> SchedulerSettings:
    return SchedulerSettings(
        policy=config.policy,
        queue_limit_per_model=config.queue.limit_per_model,
        stall_limit_s=config.instance.stall_limit_s,
        known_wait_limit_s=config.instance.known_wait_limit_s,
        pd=_pd_settings(config),
    )


def _pd_settings(config: SchedulerConfig) -> PdSettings:
    pd = config.pd_separation
    return PdSettings(
        mode=SplitMode(pd.routing_policy) if pd.enabled else SplitMode.NEVER,
        threshold_input_tokens=pd.prefilling_threshold_input_tokens,
        threshold_ratio=pd.prefilling_threshold_ratio,
    )


def _session_settings(config: SchedulerConfig) -> SessionSettings:
    instance = config.instance
    return SessionSettings(
        lease_s=instance.lease_s,
        heartbeat_interval_s=instance.heartbeat_interval_s,
        reconnect_grace_s=instance.reconnect_grace_s,
        forget_after_s=instance.forget_after_s,
        probation_s=instance.probation_s,
        probation_max_s=max(instance.probation_s, PROBATION_MAX_S),
    )


def _intake_settings(config: SchedulerConfig) -> IntakeSettings:
    return IntakeSettings(
        arriving_limit=config.queue.arriving_limit,
        default_deadline_s=config.queue.default_deadline_s,
        sampling_defaults={name: model.sampling for name, model in config.models.items()},
    )


def _tls(config: SchedulerConfig) -> Tls | None:
    tls = config.tls
    if tls.certificate is None or tls.private_key is None:
        return None
    return Tls(certificate=tls.certificate, private_key=tls.private_key, client_ca=tls.client_ca)


def _page_tls(config: SchedulerConfig) -> PageTls | None:
    """The metrics page shows the certificate that the service itself shows."""
    tls = _tls(config)
    if tls is None:
        return None
    return PageTls(certificate=tls.certificate, private_key=tls.private_key, client_ca=tls.client_ca)
