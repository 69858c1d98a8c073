"""Log lines of the executor: readable text, or JSON.  Neither ever holds a prompt or an output.

A line names the instance and, if it is about an attempt, the attempt, the request and the trace.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from typing import TextIO

from executor_svc.runtime.log_context import ABOUT, EXTRA
from sage_common.log_lines import JsonLines, log_to
from sage_common.threaded_log import ThreadedLog
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
    """Writes to file descriptor 2 at once, not through ``sys.stderr``.

    In its processes vLLM before 0.32 replaces ``sys.stderr`` by a stream that puts a name in front of every line.
    """

    def __init__(self) -> None:
        super().__init__(os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False))


def engine_json_handler(instance_id: str) -> logging.Handler:
    """Make the handler that writes JSON lines to stderr, in the executor or in a process of its engine.

    In an engine's process it writes at once: that may end without a last flush.
    """
    in_executor = multiprocessing.parent_process() is None
    return _made_for(instance_id, ThreadedLog() if in_executor else StandardError(), JsonLines(*JSON_KEYS))


def configure_logging(level: str, *, json_lines: bool, instance_id: str) -> None:
    """Log to stderr only.  With ``json_lines`` Python's warnings are log lines too."""
    lines = JsonLines(*JSON_KEYS) if json_lines else logging.Formatter(TEXT)
    log_to(_made_for(instance_id, ThreadedLog(), lines), level, warnings_too=json_lines)


def _made_for(instance_id: str, handler: logging.Handler, lines: logging.Formatter) -> logging.Handler:
    handler.setFormatter(lines)
    handler.addFilter(AboutFilter(instance_id))
    return handler
