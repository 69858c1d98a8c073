"""Limits the OpenTelemetry SDK's log lines: in number, and to those that quote nothing a client sent."""

from __future__ import annotations

import logging
import time

INTERVAL_S = 60.0
"""Time between two log lines of a kind."""
_EXPORTER = "opentelemetry.exporter.otlp.proto.grpc.exporter"
_READERS = ("opentelemetry.trace.span", "opentelemetry.trace.propagation.tracecontext")


class RateLimit(logging.Filter):
    """Lets one line of a kind pass per interval, because an exporter without its receiver logs every try."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        """Let every kind of line pass once at first.  ``interval_s``: seconds between two lines of a kind."""
        super().__init__()
        self._interval_s = interval_s
        self._logged_at: dict[str, float] = {}  # monotonic, by unformatted message; a logger has a few

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` may be logged now."""
        now = time.monotonic()
        if now - self._logged_at.get(record.msg, -self._interval_s) < self._interval_s:
            return False
        self._logged_at[record.msg] = now
        return True


_RATE_LIMIT = RateLimit()


def limit_sdk_logs() -> None:
    """Limit the SDK's loggers in this process.  Idempotent."""
    logging.getLogger(_EXPORTER).addFilter(_RATE_LIMIT)
    for name in _READERS:  # they warn of every malformed header and quote it
        logging.getLogger(name).setLevel(logging.ERROR)
