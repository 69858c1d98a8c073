"""Log lines as either service would write them with ``--log-format json``, caught in the test's own process."""

from __future__ import annotations

import json
import logging
from typing import Any

from executor_svc.telemetry.logs import AboutFilter as ExecutorsFilter
from executor_svc.telemetry.logs import JsonLines as ExecutorsLines
from scheduler_svc.telemetry.logs import AboutFilter as SchedulersFilter
from scheduler_svc.telemetry.logs import JsonLines as SchedulersLines


class JsonLog(logging.Handler):
    """``instance_id``: of every executor in the process, for want of a process of its own."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(logging.DEBUG)
        self._services: dict[str, tuple[logging.Filter, logging.Formatter]] = {
            "scheduler_svc": (SchedulersFilter(), SchedulersLines()),
            "executor_svc": (ExecutorsFilter(instance_id), ExecutorsLines()),
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
