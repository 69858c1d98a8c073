"""The telemetry of a scheduler that stands by: a metrics page that says so, and nothing that is pushed."""

from __future__ import annotations

import socket

from sage_common.tls import ServerTls
from sage_telemetry import catalogue
from sage_telemetry.exports import Exports
from sage_telemetry.meter import Meter
from sage_telemetry.resource import Identity
from sage_telemetry.settings import TelemetrySettings


class StandbyTelemetry:
    """Serves the metrics address while no term does; ``start`` and ``close`` alternate."""

    def __init__(self, settings: TelemetrySettings, tls: ServerTls | None = None) -> None:
        self._settings = settings.model_copy(update={"otlp_endpoint": None})
        self._tls = tls
        self._exports: Exports | None = None

    def start(self) -> None:
        """Serve the page, on the event loop.  Raises CannotServe if it cannot listen."""
        meter = Meter((*catalogue.BOTH, *catalogue.SCHEDULER))
        meter.observe(lambda: {catalogue.SCHEDULER_LEADS: [((), 0.0)]})
        identity = Identity(service="scheduler", instance_id=socket.gethostname(), further=self._settings.resource)
        exports = Exports(self._settings, identity, meter, tls=self._tls)
        exports.start()
        self._exports = exports

    async def close(self) -> None:
        """Let go of the address, within a tenth of a second as a rule.  Idempotent."""
        exports, self._exports = self._exports, None
        if exports is not None:
            await exports.close()
