"""Which attempt a log record is about.  Set once per attempt's task; read by ``telemetry``."""

from __future__ import annotations

from contextvars import ContextVar

from executor_svc.runtime.messages import Attempt

ABOUT: ContextVar[tuple[str, str] | None] = ContextVar("sage_attempt", default=None)
"""Attempt ("epoch/number") and request id of the current task."""


def about_attempt(attempt: Attempt, request_id: str) -> None:
    ABOUT.set((str(attempt), request_id))
