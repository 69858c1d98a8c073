"""Which attempt a log record is about.  Set once per attempt's task; read by ``telemetry``."""

from __future__ import annotations

from contextvars import ContextVar

from executor_svc.runtime.messages import Attempt

ABOUT: ContextVar[tuple[str, str, str] | None] = ContextVar("sage_attempt", default=None)
"""Attempt ("epoch/number"), request id and W3C traceparent (may be empty) of the current task."""


def about_attempt(attempt: Attempt, request_id: str, traceparent: str = "") -> None:
    ABOUT.set((str(attempt), request_id, traceparent))
