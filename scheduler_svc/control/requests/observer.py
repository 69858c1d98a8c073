"""The port through which requests are observed; telemetry implements it.

Control reports events and does not wait.  An observer returns at once, raises nothing and changes nothing; none of its
methods is called per token.  Times are seconds on the control clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Protocol

from scheduler_svc.control.requests.observed_request import ObservedRequest
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.domain.attempt_end import AttemptEnd
from scheduler_svc.domain.decision import Decision, Phase


class FailoverCause(Enum):
    """Why a request is requeued."""

    LOST = "lost"  # its instance or the session with it was lost
    STALLED = "stalled"  # its instance made no progress
    FAILED = "failed"  # the engine failed it
    REJECTED = "rejected"  # the executor did not start it
    RETURNED = "returned"  # its instance gave it back: the executor shuts down, or another engine gets the device
    UNDELIVERED = "undelivered"  # the Assign never arrived
    MISMATCH = "mismatch"  # the output that arrived does not match what its executor reports


class RequestObserver(Protocol):
    """Observes one request from its arrival to its end; ``refused`` or ``ended`` is the last call."""

    @property
    def traceparent(self) -> str:
        """The W3C trace context of the request, for log lines; empty where it is not traced."""
        ...

    def refused(self, error: BaseException, now: float) -> None:
        """Note that the request was not accepted."""
        ...

    def accepted(self, live: ObservedRequest, now: float) -> None:
        """Note that the request waits from now on."""
        ...

    def decided(self, live: ObservedRequest, decision: Decision, now: float) -> None:
        """Note that the request is placed and no longer waits."""
        ...

    def sent(
        self, live: ObservedRequest, now: float, *, attempt_number: int, instance_id: str, phase: Phase
    ) -> Mapping[str, str]:
        """Note that an attempt is sent; return the trace headers that its executor gets."""
        ...

    def charged(self, live: ObservedRequest, cost: float) -> None:
        """Note what an attempt cost, in the unit of the instances' prices, whether its end was reported or not."""
        ...

    def reported(self, live: ObservedRequest, decision: Decision, end: AttemptEnd, now: float) -> None:
        """Note how an attempt ended, even a fenced one, whose request may have ended before."""
        ...

    def first_token(self, live: ObservedRequest, now: float) -> None:
        """Note the first token of the current attempt."""
        ...

    def handed_over(self, live: ObservedRequest, took_s: float) -> None:
        """Note that a split request's KV was fetched; ``took_s`` runs from prefill's end to decode's first token."""
        ...

    def requeued(self, live: ObservedRequest, cause: FailoverCause, why: str, now: float) -> None:
        """Note that the request's attempt failed: it is requeued, unless it ends now."""
        ...

    def quarantined(self, live: ObservedRequest, now: float) -> None:
        """Note that the request runs alone from now on, because it was present at engine deaths."""
        ...

    def ended(self, live: ObservedRequest, now: float) -> None:
        """Note that the request ended; ``live.outcome`` is set."""
        ...


class Observer(Protocol):
    """Observes the scheduler; makes an observer for each request."""

    def arrived(self, submission: Submission, now: float) -> RequestObserver:
        """Return the observer of a request that arrives and is not known yet."""
        ...

    def adopted(self, live: ObservedRequest, decision: Decision | None, now: float) -> RequestObserver:
        """Return the observer of a request that an earlier scheduler accepted.

        ``decision``: where its attempt runs; None: it is placed anew.
        """
        ...

    def scheduled(self, decisions: Sequence[Decision], took_s: float) -> None:
        """Note what a scheduling pass decided, before any of it is sent."""
        ...

    def lagged(self, lag_s: float) -> None:
        """Note how late the event loop was, in seconds."""
        ...


class Unobserved:
    """Implements RequestObserver and does nothing; executors get the caller's trace context unchanged."""

    traceparent = ""

    def refused(self, error: BaseException, now: float) -> None:
        """Do nothing."""

    def accepted(self, live: ObservedRequest, now: float) -> None:
        """Do nothing."""

    def decided(self, live: ObservedRequest, decision: Decision, now: float) -> None:
        """Do nothing."""

    def sent(
        self, live: ObservedRequest, now: float, *, attempt_number: int, instance_id: str, phase: Phase
    ) -> Mapping[str, str]:
        """Return the caller's trace headers."""
        return live.request.trace_headers

    def charged(self, live: ObservedRequest, cost: float) -> None:
        """Do nothing."""

    def reported(self, live: ObservedRequest, decision: Decision, end: AttemptEnd, now: float) -> None:
        """Do nothing."""

    def first_token(self, live: ObservedRequest, now: float) -> None:
        """Do nothing."""

    def handed_over(self, live: ObservedRequest, took_s: float) -> None:
        """Do nothing."""

    def requeued(self, live: ObservedRequest, cause: FailoverCause, why: str, now: float) -> None:
        """Do nothing."""

    def quarantined(self, live: ObservedRequest, now: float) -> None:
        """Do nothing."""

    def ended(self, live: ObservedRequest, now: float) -> None:
        """Do nothing."""


UNOBSERVED = Unobserved()


class NullObserver:
    """Implements Observer and does nothing."""

    def arrived(self, submission: Submission, now: float) -> RequestObserver:
        """Return an observer that does nothing."""
        return UNOBSERVED

    def adopted(self, live: ObservedRequest, decision: Decision | None, now: float) -> RequestObserver:
        """Return an observer that does nothing."""
        return UNOBSERVED

    def scheduled(self, decisions: Sequence[Decision], took_s: float) -> None:
        """Do nothing."""

    def lagged(self, lag_s: float) -> None:
        """Do nothing."""


NULL_OBSERVER = NullObserver()
