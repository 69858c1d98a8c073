"""The attempt that a log record is about; ``telemetry.logs`` adds it to the log line.

Code that works for one attempt runs within ``logged_about``, and so do the tasks that it starts.  Other code passes
``extra=about(...)`` with each log call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import Assign, InvalidAssign

About = tuple[str, str, str]
"""Attempt ("epoch/number"), request id and W3C traceparent; the latter two are empty where they are not known."""

ABOUT: ContextVar[About | None] = ContextVar("sage_attempt", default=None)
"""The attempt that the current task's log records are about."""

EXTRA = "about_attempt"
"""Attribute of a log record that takes precedence over the task's ABOUT."""


@contextmanager
def logged_about(extra: Mapping[str, About]) -> Iterator[None]:
    """Have the log records of the block, and of tasks started in it, say which attempt they are about."""
    token = ABOUT.set(extra[EXTRA])
    try:
        yield
    finally:
        ABOUT.reset(token)


def about(attempt: AttemptId, request_id: str = "", trace_headers: Mapping[str, str] | None = None) -> dict[str, About]:
    """Return ``extra`` for log lines about an attempt."""
    return {EXTRA: (str(attempt), request_id, (trace_headers or {}).get("traceparent", ""))}


def about_assigned(assign: Assign | InvalidAssign) -> dict[str, About]:
    """Return ``extra`` for log lines about the attempt of an Assign."""
    return about(assign.attempt, assign.request_id, assign.trace_headers)
