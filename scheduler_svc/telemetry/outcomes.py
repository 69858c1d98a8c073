"""How a request ended, as the label ``reason``: a small set of values, known beforehand."""

from __future__ import annotations

import asyncio

from scheduler_svc.control.requests.outcome import CLIENT_GONE, DELIVERY_FAILED, Finished, Outcome
from scheduler_svc.domain import errors

REASONS: dict[type[BaseException], str] = {
    errors.InvalidRequest: "invalid_request",
    errors.UnknownModel: "unknown_model",
    errors.RequestConflict: "request_conflict",
    errors.RequestNotFound: "request_not_found",
    errors.QueueFull: "queue_full",
    errors.LimitReached: "limit_reached",
    errors.TenantLimitReached: "tenant_limit",
    errors.Overloaded: "overloaded",
    errors.NoInstance: "no_instance",
    errors.ShuttingDown: "shutting_down",
    errors.DeadlineExceeded: "deadline_exceeded",
    errors.RequestCancelled: "cancelled",
    errors.GenerationFailed: "generation_failed",
    errors.ModelChanged: "model_changed",
    errors.Recovering: "recovering",
    errors.NotLeader: "not_leader",
    errors.JournalUnavailable: "journal_unavailable",
    errors.NoJournal: "no_journal",
    errors.OutputLost: "output_lost",
    errors.PolicyFailed: "internal",
}
"""The reason of each error with which a request can end: those of ``sage_wire.errors`` in lower case.

Tests compare it with ``transport.errors`` and with the table in ``docs/ends-of-a-request.md``.
"""


CANCELLED_FOR = {CLIENT_GONE: "client_gone", DELIVERY_FAILED: "delivery_failed"}
"""The label of each reason for which the scheduler itself cancels a request."""


def reason_of(outcome: Outcome | BaseException) -> str:
    """Return the label for how a request ended: a finish reason, a label of CANCELLED_FOR, or the error's reason.

    An error without a reason counts as ``internal``.
    """
    if isinstance(outcome, Finished):
        return outcome.finish_reason
    if isinstance(outcome, asyncio.CancelledError):
        return "client_gone"
    if isinstance(outcome, errors.RequestCancelled) and outcome.reason in CANCELLED_FOR:
        return CANCELLED_FOR[outcome.reason]
    return REASONS.get(type(outcome), "internal")


def overload_cause(error: BaseException) -> str:
    """Return the label for what a request lacked capacity for, or which limit it met; empty for another error."""
    if isinstance(error, errors.Overloaded):
        return error.cause
    if isinstance(error, errors.TenantLimitReached):
        return error.limit_name
    return "queue_full" if isinstance(error, errors.QueueFull) else ""


def in_words(outcome: BaseException) -> str:
    """Describe the error in one sentence that quotes nothing of what the caller wrote."""
    if isinstance(outcome, errors.InvalidRequest):
        return f"wrong values of {', '.join(invalid_fields(outcome))}"
    return str(outcome) if isinstance(outcome, errors.SchedulerError) else type(outcome).__name__


def invalid_fields(outcome: BaseException | Outcome | None) -> list[str]:
    """Return the fields at fault; empty unless the outcome is InvalidRequest."""
    return [v.field for v in outcome.violations] if isinstance(outcome, errors.InvalidRequest) else []
