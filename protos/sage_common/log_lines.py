"""Formats log records as JSON, one object a line, and sets the one handler that a service logs to."""

from __future__ import annotations

import json
import logging


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: ``time``, ``level``, ``logger``, ``message``, ids, and ``exception``.

    The ids are the record's attributes ``keys`` and the entries of its dict ``ids``.  A service's filter sets both;
    empty and absent ones are left out.
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


GRPC_LOGGER = "grpc._cython.cygrpc"
"""The logger of gRPC's core."""


def hide_headers(record: logging.LogRecord) -> bool:
    """Return whether a record of gRPC may be written: not one that repeats a header which is no text.

    It has the header's bytes, which may be a token, and a stack; whoever reaches the port sends as many as it likes.
    """
    return not str(record.msg).startswith("Invalid encoding on")


def log_to(handler: logging.Handler, level: str, *, warnings_too: bool) -> None:
    """Make ``handler`` the process's only one.  ``warnings_too``: log Python's warnings instead of printing them."""
    if warnings_too:
        logging.captureWarnings(True)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger(GRPC_LOGGER).addFilter(hide_headers)
