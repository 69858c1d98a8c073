"""All exports of one process: the metrics page, the pushes of metrics, the export of spans.  Each may be off."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from dataclasses import replace

from sage_common.addresses import split_host_port
from sage_common.tls import ServerTls
from sage_telemetry.catalogue import BUILD
from sage_telemetry.cloudwatch_push import CloudWatchPush
from sage_telemetry.meter import Meter, Observed
from sage_telemetry.metrics_push import MetricsPush
from sage_telemetry.prometheus import MetricsPage
from sage_telemetry.resource import Identity, version
from sage_telemetry.sdk_logs import limit_sdk_logs
from sage_telemetry.settings import TelemetrySettings
from sage_telemetry.span_export import DEFAULT_LIMITS, ExportLimits, SpanExport

log = logging.getLogger(__name__)

CLOSE_S = 5.0
"""How long ``Exports.close`` may take; each export has a shorter bound of its own."""


class Exports:
    """The exports that the configuration section ``telemetry`` switches on."""

    def __init__(
        self,
        settings: TelemetrySettings,
        identity: Identity,
        meter: Meter,
        *,
        tls: ServerTls | None = None,
        limits: ExportLimits = DEFAULT_LIMITS,
    ) -> None:
        """Make the exports that are switched on; nothing is served or sent before ``start``.

        ``tls``: of the metrics page.
        """
        self._identity = identity
        self.metrics_port = 0  # of the page, once ``start`` has bound it; 0 without a page
        self.spans: SpanExport | None = None
        self._push: MetricsPush | None = None
        self._page: MetricsPage | None = None
        if (otlp := settings.otlp) is not None:
            limits = replace(limits, interval_s=settings.trace_push_interval_s)
            self.spans = SpanExport(otlp, identity, limits)
            self._push = MetricsPush(meter, otlp, identity, interval_s=settings.metrics_push_interval_s)
        if settings.metrics_listen is not None:
            self._page = MetricsPage(meter, settings.metrics_listen, tls)
        self._cloudwatch: CloudWatchPush | None = None
        if settings.cloudwatch.namespace is not None:
            self._cloudwatch = CloudWatchPush(meter, settings.cloudwatch, identity)
        self._settings = settings
        meter.observe(self._observed)

    def start(self) -> None:
        """Start every export.  Raises CannotServe where the page's address cannot be bound."""
        limit_sdk_logs()
        if self._page is not None:
            self.metrics_port = self._page.start()
            host = split_host_port(self._settings.metrics_listen or "")[0]
            log.info("metrics on %s port %d, path /metrics", host, self.metrics_port)
        if self.spans is not None:
            self.spans.start()
        if self._push is not None:
            self._push.start()
        if self._cloudwatch is not None:
            self._cloudwatch.start()

    async def close(self) -> None:
        """Deliver what is left and end every export, within CLOSE_S whatever the receivers do."""
        exports = [each for each in (self.spans, self._push, self._cloudwatch, self._page) if each is not None]
        try:
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*map(_closed, exports))
        except TimeoutError:
            log.warning("telemetry did not end within %g s and is abandoned", CLOSE_S)

    def _observed(self) -> Observed:
        own_id = self._identity.instance_id if self._identity.service == "executor" else ""
        build: Observed = {BUILD: [((self._identity.service, version(), own_id), 1.0)]}
        return {**build, **(self.spans.observed() if self.spans is not None else {})}


async def _closed(export: SpanExport | MetricsPush | CloudWatchPush | MetricsPage) -> None:
    """Close ``export`` in a daemon thread, because the process would wait for a thread of asyncio before it exits."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def close() -> None:
        try:
            export.close()
        except Exception:
            log.exception("cannot close %s", type(export).__name__)
        with suppress(RuntimeError):  # the loop has ended, so nothing waits for this
            loop.call_soon_threadsafe(over.set)

    threading.Thread(target=close, name="telemetry-close", daemon=True).start()
    await over.wait()
