"""Log lines of the executor: readable text, or JSON.  Neither ever holds a prompt or an output.

A line names the instance and, if it is about an attempt, the attempt, the request and the trace.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

from executor_svc.runtime.log_context import ABOUT, EXTRA
from sage_common.log_lines import JsonLines, log_to
from sage_telemetry.log_ids import trace_ids

TEXT = "%(asctime)s %(levelname)-7s %(name)s%(about)s: %(message)s"
JSON_KEYS = ("instance", "attempt", "request")


class AboutFilter(logging.Filter):
    """Adds the instance, attempt, request and trace to each record.  Filters nothing out."""

    def __init__(self, instance_id: str) -> None:
        super().__init__()
        self._instance_id = instance_id

    def filter(self, record: logging.LogRecord) -> bool:
        """Add ``instance``, ``attempt``, ``request`` and ``ids`` (for JSON lines) and ``about`` (for text)."""
        about = getattr(record, EXTRA, None) or ABOUT.get()
        attempt, request, traceparent = about or ("", "", "")
        vars(record).update(
            instance=self._instance_id,
            attempt=attempt,
            request=request,
            ids=trace_ids(traceparent),
            about=f" [{' '.join(filter(None, (request, attempt)))}]" if about else "",
        )
        return True


class StandardError(logging.StreamHandler[TextIO]):
    """Writes to file descriptor 2, not through ``sys.stderr``.

    In its processes vLLM before 0.32 replaces ``sys.stderr`` by a stream that puts a name in front of every line.
    """

    def __init__(self) -> None:
        super().__init__(os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False))


def json_handler(instance_id: str) -> logging.Handler:
    """Make the handler that writes JSON lines to stderr, in the executor and in the processes of its engine."""
    handler = StandardError()
    handler.setFormatter(JsonLines(*JSON_KEYS))
    handler.addFilter(AboutFilter(instance_id))
    return handler


def configure_logging(level: str, *, json_lines: bool, instance_id: str) -> None:
    """Log to stderr only.  With ``json_lines`` Python's warnings are log lines too."""
    log_to(json_handler(instance_id) if json_lines else _text_handler(instance_id), level, warnings_too=json_lines)


def _text_handler(instance_id: str) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(TEXT))
    handler.addFilter(AboutFilter(instance_id))
    return handler
