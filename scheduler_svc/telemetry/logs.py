"""Log lines of the scheduler: readable text, or JSON.  Neither ever holds a prompt or an output.

A line about a request names the request (``request``) and its trace (``trace_id``, ``span_id``), where there is one:
``control`` logs it with ``extra=live.about``.
"""

from __future__ import annotations

import logging

from sage_common.log_lines import JsonLines, log_to
from sage_common.threaded_log import ThreadedLog
from sage_telemetry.log_ids import trace_ids
from scheduler_svc.access.audit import LOGGER as AUDIT_LOGGER

TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s%(about)s"
JSON_KEYS = ("request",)


class AboutFilter(logging.Filter):
    """Puts the ids of the trace that a record belongs to on the record; lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add ``ids`` (for JSON lines) and ``about`` (for text) to the record."""
        ids = trace_ids(getattr(record, "traceparent", ""))
        record.ids = ids
        record.about = f" [trace {ids['trace_id']}]" if ids else ""
        return True


def configure_logging(level: str, *, json_lines: bool) -> None:
    """Log to stderr and nowhere else.  In JSON, Python's warnings are log lines too.

    The audit log is written whatever the ``level``.
    """
    handler = ThreadedLog()
    handler.setFormatter(JsonLines(*JSON_KEYS) if json_lines else logging.Formatter(TEXT))
    handler.addFilter(AboutFilter())
    log_to(handler, level, warnings_too=json_lines)
    logging.getLogger(AUDIT_LOGGER).setLevel(logging.INFO)
