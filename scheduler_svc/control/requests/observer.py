"""Who watches what happens: the port that telemetry implements.

Control tells what happened and goes on.  An observer returns at once, raises nothing and changes nothing; none of these
is called per token.  Times are seconds on the control clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from scheduler_svc.control.requests.live_request import LiveRequest
    from scheduler_svc.control.requests.submission import Submission
    from scheduler_svc.domain.attempt_end import AttemptEnd
    from scheduler_svc.domain.decision import Decision, Phase


class FailoverCause(Enum):
    """Why a request has to go on elsewhere."""

    LOST = "lost"  # its instance, or the session with it
    STALLED = "stalled"  # its instance makes no progress
    FAILED = "failed"  # by the engine
    REJECTED = "rejected"  # by the executor, before it started
    RETURNED = "returned"  # by an executor that goes away
    UNDELIVERED = "undelivered"  # the Assign never arrived
    MISMATCH = "mismatch"  # what arrived is not what the executor says it sent


class RequestObserver(Protocol):
    """Of one request, from its arrival to its end; ``refused`` or ``ended`` is the last call."""

    @property
    def traceparent(self) -> str:
        """W3C trace context of the request itself, for log lines; empty where it is not traced."""
        ...

    def refused(self, error: BaseException, now: float) -> None:
        """It was not accepted."""
        ...

    def accepted(self, live: LiveRequest, now: float) -> None:
        """It waits from now on."""
        ...

    def decided(self, live: LiveRequest, decision: Decision, now: float) -> None:
        """It has a place, and waits no more."""
        ...

    def sent(
        self, live: LiveRequest, now: float, *, attempt_number: int, instance_id: str, phase: Phase
    ) -> Mapping[str, str]:
        """An attempt goes to its executor, with the trace context that is returned."""
        ...

    def reported(self, live: LiveRequest, decision: Decision, end: AttemptEnd, now: float) -> None:
        """The executor's last word on an attempt, also on one that is fenced: its request may be over."""
        ...

    def first_token(self, live: LiveRequest, now: float) -> None:
        """Of the attempt under way."""
        ...

    def handed_over(self, live: LiveRequest, took_s: float) -> None:
        """A split request's blocks were fetched: prefill's end to decode's first token."""
        ...

    def moved_on(self, live: LiveRequest, cause: FailoverCause, why: str, now: float) -> None:
        """Its attempt failed; it waits again, unless it ends now."""
        ...

    def ended(self, live: LiveRequest, now: float) -> None:
        """``live.outcome`` is set."""
        ...


class Observer(Protocol):
    def arrived(self, submission: Submission, now: float) -> RequestObserver:
        """A request that is not known yet is at the door."""
        ...

    def scheduled(self, decisions: Sequence[Decision], took_s: float) -> None:
        """A scheduling pass placed these, before any of them is sent."""
        ...

    def lagged(self, lag_s: float) -> None:
        """How late the event loop was."""
        ...


class Unobserved:
    """Nobody watches a request; the caller's trace context goes on to the executor as it came."""

    traceparent = ""

    def refused(self, error: BaseException, now: float) -> None:
        pass

    def accepted(self, live: LiveRequest, now: float) -> None:
        pass

    def decided(self, live: LiveRequest, decision: Decision, now: float) -> None:
        pass

    def sent(
        self, live: LiveRequest, now: float, *, attempt_number: int, instance_id: str, phase: Phase
    ) -> Mapping[str, str]:
        return live.request.trace_headers

    def reported(self, live: LiveRequest, decision: Decision, end: AttemptEnd, now: float) -> None:
        pass

    def first_token(self, live: LiveRequest, now: float) -> None:
        pass

    def handed_over(self, live: LiveRequest, took_s: float) -> None:
        pass

    def moved_on(self, live: LiveRequest, cause: FailoverCause, why: str, now: float) -> None:
        pass

    def ended(self, live: LiveRequest, now: float) -> None:
        pass


UNOBSERVED = Unobserved()


class NullObserver:
    """Nobody watches."""

    def arrived(self, submission: Submission, now: float) -> RequestObserver:
        return UNOBSERVED

    def scheduled(self, decisions: Sequence[Decision], took_s: float) -> None:
        pass

    def lagged(self, lag_s: float) -> None:
        pass


NULL_OBSERVER = NullObserver()
