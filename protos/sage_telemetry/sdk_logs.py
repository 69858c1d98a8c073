"""Log lines of the OpenTelemetry SDK: few enough, and nothing in them that a client wrote."""

from __future__ import annotations

import logging
import time

EVERY_S = 60.0
_EXPORTER = "opentelemetry.exporter.otlp.proto.grpc.exporter"
_READERS = ("opentelemetry.trace.span", "opentelemetry.trace.propagation.tracecontext")


class Seldom(logging.Filter):
    """Lets a kind of line pass once in a while: an exporter whose receiver is away says so with every try."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        super().__init__()
        self._every_s = every_s
        self._said_at: dict[str, float] = {}  # by unformatted message, of which one logger has a few

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._said_at.get(record.msg, -self._every_s) < self._every_s:
            return False
        self._said_at[record.msg] = now
        return True


_SELDOM = Seldom()


def calm_down() -> None:
    """Idempotent."""
    logging.getLogger(_EXPORTER).addFilter(_SELDOM)
    for name in _READERS:  # they warn of every malformed header, and quote it
        logging.getLogger(name).setLevel(logging.ERROR)
