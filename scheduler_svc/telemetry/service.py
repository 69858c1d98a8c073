"""The scheduler's telemetry as a whole: made from its configuration, started and stopped with the service."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping

from sage_common.clock import Clock
from sage_common.tls import ServerTls
from sage_telemetry.catalogue import BOTH, SCHEDULER
from sage_telemetry.exports import Exports
from sage_telemetry.loop_source import LoopSource
from sage_telemetry.meter import Meter, Observed
from sage_telemetry.resource import Identity
from sage_telemetry.settings import TelemetrySettings
from sage_wire.errors import ErrorReason
from scheduler_svc.control.adoption.restart_figures import RestartFigures
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.sleep.device_groups import DeviceGroups
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.telemetry.adapters import AdapterReader
from scheduler_svc.telemetry.batches import BatchReader
from scheduler_svc.telemetry.call_metrics import CallMetrics
from scheduler_svc.telemetry.fleet import FleetReader
from scheduler_svc.telemetry.journal import JournalReader
from scheduler_svc.telemetry.observer import TelemetryObserver
from scheduler_svc.telemetry.roles import RoleReader
from scheduler_svc.telemetry.scaling import ScalingReader
from scheduler_svc.telemetry.session_metrics import SessionMetrics

log = logging.getLogger(__name__)


class SchedulerTelemetry:
    """Owns the meter, the exports and the observer."""

    def __init__(self, settings: TelemetrySettings, *, epoch: int, tls: ServerTls | None = None) -> None:
        self._settings = settings
        self._epoch = epoch
        self.meter = Meter((*BOTH, *SCHEDULER))
        self.identity = Identity(
            service="scheduler", instance_id=f"{socket.gethostname()}-{epoch}", further=settings.resource
        )
        self.exports = Exports(settings, self.identity, self.meter, tls=tls)
        self.client_sessions = SessionMetrics(self.meter)
        self._observer: TelemetryObserver | None = None  # None until ``observer`` is called, and if nothing is exported

    def observer(self, scheduler: Scheduler) -> Observer:
        """Return the observer that control reports to; the null observer if nothing is exported."""
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

    def call_ended(self) -> Callable[[str, ErrorReason], None]:
        """Return what to tell of each call that ends with an error; it does nothing if nothing is exported."""
        return CallMetrics(self.meter).ended if self._settings.on else lambda method, reason: None

    def start(
        self,
        scheduler: Scheduler,
        clock: Clock,
        requests: RequestTable,
        *,
        recorded: Callable[[], Mapping[str, int]] = dict,
        restart: Callable[[], RestartFigures] = RestartFigures,
        journal: JournalReader | None = None,
        batches: BatchReader | None = None,
        scaling: ScalingReader | None = None,
        device_groups: DeviceGroups | None = None,
        roles: RoleReader | None = None,
        adapters: AdapterReader | None = None,
    ) -> None:
        """Start the exports, on the event loop.  Raises CannotServe if the metrics page cannot listen.

        ``recorded`` counts the lines of the recording by what became of them.  ``restart``: of earlier requests.
        ``journal`` reads its figures and those of usage records, ``batches`` those of batches, ``scaling``
        those of desired instances, ``device_groups`` the orders to engines that take turns, ``roles`` those of
        automatic roles, ``adapters`` those of adapters on instances; None: there are none.
        """
        fleet = FleetReader(
            scheduler,
            clock,
            requests,
            recorded,
            lambda: self.client_sessions.open,
            restart,
            journal,
            batches,
            scaling,
            device_groups,
            roles,
            adapters,
        )

        def read() -> Observed:
            if self._observer is not None:
                self._observer.begin_models()
            return fleet.read()

        self.meter.observe(LoopSource(read))
        self.exports.start()
        if self._settings.content:
            log.warning("telemetry.content is on: traces contain prompts and outputs")

    async def close(self) -> None:
        """Send what is pending and stop, within a few seconds even if receivers do not answer."""
        await self.exports.close()
