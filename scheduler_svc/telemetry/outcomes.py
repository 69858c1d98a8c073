"""How a request ended, as a label: few values, known beforehand."""

from __future__ import annotations

import asyncio

from scheduler_svc.control.requests.intake import CLIENT_GONE
from scheduler_svc.control.requests.outcome import Finished, Outcome
from scheduler_svc.domain import errors

REASONS: dict[type[BaseException], str] = {
    errors.InvalidRequest: "invalid_request",
    errors.UnknownModel: "unknown_model",
    errors.RequestConflict: "request_conflict",
    errors.QueueFull: "queue_full",
    errors.LimitReached: "limit_reached",
    errors.NoInstance: "no_instance",
    errors.ShuttingDown: "shutting_down",
    errors.DeadlineExceeded: "deadline_exceeded",
    errors.RequestCancelled: "cancelled",
    errors.GenerationFailed: "generation_failed",
}
"""The error catalogue's reasons in lower case; a test holds the two against each other."""


def reason_of(outcome: Outcome | BaseException) -> str:
    if isinstance(outcome, Finished):
        return outcome.finish_reason
    if isinstance(outcome, asyncio.CancelledError) or _left(outcome):
        return "client_gone"
    return REASONS.get(type(outcome), "internal")


def in_words(outcome: BaseException) -> str:
    """One sentence that quotes nothing of the caller's."""
    if isinstance(outcome, errors.InvalidRequest):
        return f"invalid: {', '.join(invalid_fields(outcome))}"
    return str(outcome) if isinstance(outcome, errors.SchedulerError) else type(outcome).__name__


def invalid_fields(outcome: BaseException | Outcome | None) -> list[str]:
    return [v.field for v in outcome.violations] if isinstance(outcome, errors.InvalidRequest) else []


def _left(outcome: BaseException) -> bool:
    return isinstance(outcome, errors.RequestCancelled) and outcome.reason == CLIENT_GONE
