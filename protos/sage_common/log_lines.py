"""Log lines as JSON, one object a line, and the one handler that a service logs to."""

from __future__ import annotations

import json
import logging


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: ``time``, ``level``, ``logger``, ``message`` and whatever applies of ids
    and ``exception``.

    The ids are the attributes ``keys`` of the record, and the entries of its attribute ``ids``, a dict; both are put
    there by a service's filter, and what is empty or absent is left out.
    """

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self._keys = keys

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a line break."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key in self._keys:
            if value := getattr(record, key, ""):
                line[key] = value
        line |= getattr(record, "ids", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to(handler: logging.Handler, level: str, *, warnings_too: bool) -> None:
    """Make ``handler`` the process's only one.  ``warnings_too``: log Python's warnings instead of printing them."""
    if warnings_too:
        logging.captureWarnings(True)
    logging.basicConfig(level=level, handlers=[handler], force=True)
