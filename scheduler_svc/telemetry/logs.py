"""Log lines: readable text, or JSON.  Neither ever holds a prompt or an output.

A line about a request says which (``request``), and which trace where there is one (``trace_id``, ``span_id``); control
hands both over as ``extra=live.about``.
"""

from __future__ import annotations

import json
import logging
import sys

from sage_telemetry.log_ids import trace_ids

TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s%(about)s"


class AboutFilter(logging.Filter):
    """Puts the ids of the request a record is about on every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        ids = trace_ids(getattr(record, "traceparent", ""))
        record.ids = ids
        record.about = f" [trace {ids['trace_id']}]" if ids else ""
        return True


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := getattr(record, "request", ""):
            line["request"] = request
        line |= getattr(record, "ids", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(level: str, *, json_lines: bool) -> None:
    """One handler on stderr for the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if json_lines else logging.Formatter(TEXT))
    handler.addFilter(AboutFilter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
