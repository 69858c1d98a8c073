"""The scheduler's telemetry as one thing: made of its configuration, started and ended with the service."""

from __future__ import annotations

import logging
import socket

from sage_common.clock import Clock
from sage_common.tls import ServerTls
from sage_telemetry.catalogue import BOTH, SCHEDULER
from sage_telemetry.exports import Exports
from sage_telemetry.loop_source import LoopSource
from sage_telemetry.meter import Meter, Observed
from sage_telemetry.resource import Identity
from sage_telemetry.settings import TelemetrySettings
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.telemetry.fleet import FleetReader
from scheduler_svc.telemetry.observer import TelemetryObserver

log = logging.getLogger(__name__)


class SchedulerTelemetry:
    def __init__(self, settings: TelemetrySettings, *, epoch: int, tls: ServerTls | None = None) -> None:
        self._settings = settings
        self._epoch = epoch
        self.meter = Meter((*BOTH, *SCHEDULER))
        identity = Identity(
            service="scheduler", instance_id=f"{socket.gethostname()}-{epoch}", further=settings.resource
        )
        self.exports = Exports(settings, identity, self.meter, tls=tls)
        self._observer: TelemetryObserver | None = None  # None until control has one, and where nothing is told

    def observer(self, scheduler: Scheduler) -> Observer:
        """Whom control tells what happens."""
        if not self._settings.on:
            return NULL_OBSERVER
        self._observer = TelemetryObserver(
            scheduler,
            self.meter,
            self.exports.spans,
            epoch=self._epoch,
            sampling_ratio=self._settings.sampling_ratio,
            content=self._settings.content,
        )
        return self._observer

    def start(self, scheduler: Scheduler, clock: Clock, requests: RequestTable) -> None:
        """On the event loop.  Raises CannotServe."""
        fleet = FleetReader(scheduler, clock, requests)

        def read() -> Observed:
            if self._observer is not None:
                self._observer.begin_models()
            return fleet.read()

        self.meter.observe(LoopSource(read))
        self.exports.start()
        if self._settings.content:
            log.warning("telemetry.content is on: traces hold prompts and outputs")

    async def close(self) -> None:
        """Last words, within a few seconds whatever the receivers do."""
        await self.exports.close()
