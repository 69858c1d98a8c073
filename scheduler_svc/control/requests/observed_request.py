"""What observers may read of a request; ``LiveRequest`` has it all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from scheduler_svc.control.requests.earlier_attempt import AdoptedAttempt
from scheduler_svc.control.requests.outcome import Outcome, SloOutcome
from scheduler_svc.control.requests.output_log import OutputLog
from scheduler_svc.control.requests.placement import Placement
from scheduler_svc.domain.continuation import ContinuationMode
from scheduler_svc.domain.request import Request, RequestKey, RequestState


class ObservedRequest(Protocol):
    """A request as an observer sees it: what was recorded of it so far.  Times are seconds on the control clock."""

    @property
    def key(self) -> RequestKey:
        """The request's tenant and id."""
        ...

    @property
    def request(self) -> Request:
        """What was asked for."""
        ...

    @property
    def state(self) -> RequestState:
        """The state now."""
        ...

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None before."""
        ...

    @property
    def output(self) -> OutputLog:
        """The output so far."""
        ...

    @property
    def placements(self) -> Sequence[Placement]:
        """The decisions that were sent to executors, oldest first."""
        ...

    @property
    def adopted(self) -> AdoptedAttempt | None:
        """The attempt of an earlier scheduler that it goes on with; None if it has none."""
        ...

    @property
    def attempts(self) -> int:
        """How many attempts were started."""
        ...

    @property
    def continuation(self) -> ContinuationMode | None:
        """How the current attempt goes on; None if nothing was delivered before it."""
        ...

    @property
    def cost(self) -> float:
        """What ended and lost attempts cost, in the unit of the instances' prices."""
        ...

    @property
    def first_assigned_at(self) -> float | None:
        """When it was placed for the first time."""
        ...

    @property
    def first_token_at(self) -> float | None:
        """When its first token came."""
        ...

    @property
    def last_token_at(self) -> float | None:
        """When its latest token came."""
        ...

    def measure_slo(self, now: float) -> Sequence[SloOutcome]:
        """Compare each target that the caller stated with what happened up to ``now``."""
        ...
