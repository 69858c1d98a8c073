"""Makes the executor's telemetry from its configuration, starts it and closes it."""

from __future__ import annotations

from executor_svc.runtime.observer import NULL_OBSERVER, Observer
from executor_svc.telemetry.engine_reader import EngineReader
from executor_svc.telemetry.observer import TelemetryObserver
from sage_common.tls import ServerTls
from sage_telemetry.catalogue import BOTH, EXECUTOR
from sage_telemetry.exports import Exports
from sage_telemetry.loop_source import LoopSource
from sage_telemetry.meter import Meter
from sage_telemetry.resource import Identity
from sage_telemetry.settings import TelemetrySettings


class ExecutorTelemetry:
    """Metrics and traces of one executor, and their exports."""

    def __init__(
        self, settings: TelemetrySettings, *, instance_id: str, model: str, engine: str, tls: ServerTls | None = None
    ) -> None:
        self.meter = Meter((*BOTH, *EXECUTOR))
        identity = Identity(service="executor", instance_id=instance_id, further=settings.resource)
        self.exports = Exports(settings, identity, self.meter, tls=tls)
        self.observer: Observer = NULL_OBSERVER
        if settings.on:
            self.observer = TelemetryObserver(
                self.meter,
                self.exports.spans,
                instance_id=instance_id,
                model=model,
                engine=engine,
                sampling_ratio=settings.sampling_ratio,
            )

    def start(self, reader: EngineReader) -> None:
        """Start to export.  Call on the event loop.  Raises CannotServe."""
        self.meter.observe(LoopSource(reader.read))
        self.exports.start()

    async def close(self) -> None:
        """Export what is left.  Takes a few seconds at most, also if a receiver does not answer."""
        await self.exports.close()
