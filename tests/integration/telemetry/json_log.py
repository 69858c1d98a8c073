"""Log lines as either service would write them with ``--log-format json``, caught in the test's own process."""

from __future__ import annotations

import json
import logging
from typing import Any

from executor_svc.telemetry import logs as executors
from sage_common.log_lines import JsonLines
from scheduler_svc.telemetry import logs as schedulers


class JsonLog(logging.Handler):
    """``instance_id``: of every executor in the process, for want of a process of its own."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(logging.DEBUG)
        self._services: dict[str, tuple[logging.Filter, logging.Formatter]] = {
            "scheduler_svc": (schedulers.AboutFilter(), JsonLines(*schedulers.JSON_KEYS)),
            "executor_svc": (executors.AboutFilter(instance_id), JsonLines(*executors.JSON_KEYS)),
        }
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        service = self._services.get(record.name.partition(".")[0])
        if service is not None:
            about, lines = service
            about.filter(record)
            self.lines.append(json.loads(lines.format(record)))

    def saying(self, words: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if words in line["message"]]
