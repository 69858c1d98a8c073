"""Log lines for people, or JSON lines: which instance, which attempt of which request, which trace.  Never a prompt or
an output."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TextIO

from executor_svc.runtime.log_context import ABOUT, EXTRA
from sage_telemetry.log_ids import trace_ids

TEXT = "%(asctime)s %(levelname)-7s %(name)s%(about)s: %(message)s"


class AboutFilter(logging.Filter):
    """Puts the instance, and the attempt and request a record is about, on every record."""

    def __init__(self, instance_id: str) -> None:
        super().__init__()
        self._instance_id = instance_id

    def filter(self, record: logging.LogRecord) -> bool:
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


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key in ("instance", "attempt", "request"):
            if value := getattr(record, key, ""):
                line[key] = value
        line |= getattr(record, "ids", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class StandardError(logging.StreamHandler[TextIO]):
    """Writes to the descriptor, not through ``sys.stderr``: in its processes vLLM before 0.32 has that one put a name
    in front of every line."""

    def __init__(self) -> None:
        super().__init__(os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False))


def json_handler(instance_id: str) -> logging.Handler:
    handler = StandardError()
    handler.setFormatter(JsonLines())
    handler.addFilter(AboutFilter(instance_id))
    return handler


def configure_logging(level: str, *, json_lines: bool, instance_id: str) -> None:
    """One handler on stderr for the process.  In JSON, Python's warnings are log lines too."""
    if json_lines:
        logging.captureWarnings(True)
        logging.basicConfig(level=level, handlers=[json_handler(instance_id)], force=True)
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(TEXT))
    handler.addFilter(AboutFilter(instance_id))
    logging.basicConfig(level=level, handlers=[handler], force=True)
