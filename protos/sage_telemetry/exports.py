"""All ways out of one process: the metrics page, the push of metrics, the export of spans.  Each may be off."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from sage_telemetry.catalogue import BUILD
from sage_telemetry.endpoints import split_address
from sage_telemetry.meter import Meter, Observed
from sage_telemetry.metrics_push import MetricsPush
from sage_telemetry.prometheus import MetricsPage, PageTls
from sage_telemetry.resource import Identity, version
from sage_telemetry.sdk_logs import calm_down
from sage_telemetry.settings import TelemetrySettings
from sage_telemetry.span_export import DEFAULT_LIMITS, ExportLimits, SpanExport

log = logging.getLogger(__name__)


class Exports:
    def __init__(
        self,
        settings: TelemetrySettings,
        identity: Identity,
        meter: Meter,
        *,
        tls: PageTls | None = None,
        limits: ExportLimits = DEFAULT_LIMITS,
    ) -> None:
        self._identity = identity
        self.metrics_port = 0  # of the page, once it is served
        self.spans: SpanExport | None = None
        self._push: MetricsPush | None = None
        self._page: MetricsPage | None = None
        if (otlp := settings.otlp) is not None:
            limits = replace(limits, interval_s=settings.trace_push_interval_s)
            self.spans = SpanExport(otlp, identity, limits)
            self._push = MetricsPush(meter, otlp, identity, interval_s=settings.metrics_push_interval_s)
        if settings.metrics_listen is not None:
            self._page = MetricsPage(meter, settings.metrics_listen, tls)
        self._settings = settings
        meter.observe(self._observed)

    def start(self) -> None:
        """Raises CannotServe."""
        calm_down()
        if self._page is not None:
            self.metrics_port = self._page.start()
            host = split_address(self._settings.metrics_listen or "")[0]
            log.info("metrics on %s port %d, path /metrics", host, self.metrics_port)
        if self.spans is not None:
            self.spans.start()
        if self._push is not None:
            self._push.start()

    async def close(self) -> None:
        """Last words, bounded to a few seconds whatever the receivers do."""
        ways = [way for way in (self.spans, self._push, self._page) if way is not None]
        await asyncio.gather(*(asyncio.to_thread(way.close) for way in ways))

    def _observed(self) -> Observed:
        own_id = self._identity.instance_id if self._identity.service == "executor" else ""
        build: Observed = {BUILD: [((self._identity.service, version(), own_id), 1.0)]}
        return {**build, **(self.spans.observed() if self.spans is not None else {})}
