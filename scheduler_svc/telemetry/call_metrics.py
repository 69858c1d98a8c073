"""Counts the calls that are refused for who calls or for a limit."""

from __future__ import annotations

from sage_telemetry import catalogue
from sage_telemetry.meter import Meter
from sage_wire.errors import ErrorReason

REFUSALS = frozenset(
    {
        ErrorReason.UNAUTHENTICATED,
        ErrorReason.PERMISSION_DENIED,
        ErrorReason.DUPLICATE_INSTANCE,
        ErrorReason.UNKNOWN_SESSION,
        ErrorReason.QUEUE_FULL,
        ErrorReason.LIMIT_REACHED,
        ErrorReason.TENANT_LIMIT,
        ErrorReason.OVERLOADED,
    }
)
"""Reasons that are counted: the caller's identity, and limits.  Other errors count with their requests."""


class CallMetrics:
    """Counts refusals by call and reason."""

    def __init__(self, meter: Meter) -> None:
        self._refused = meter.counter(catalogue.CALLS_REFUSED)

    def ended(self, method: str, reason: ErrorReason) -> None:
        """Count the end of a call by an error, if it is a refusal.  ``method``: a served one, with its service."""
        if reason in REFUSALS:
            self._refused.labels(method.rpartition("/")[2], reason.code.lower()).inc()
