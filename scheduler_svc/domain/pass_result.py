"""What one scheduling pass did."""

from __future__ import annotations

from dataclasses import dataclass, field

from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.queue import ModelQueue
from scheduler_svc.domain.shares.group import Charge
from scheduler_svc.domain.waiting_request import WaitingRequest


@dataclass(slots=True, kw_only=True)
class PassResult:
    """What one pass did."""

    decisions: list[Decision] = field(default_factory=list)
    more: bool = False  # it stopped before the end of the queue, and not for want of capacity
    failed: tuple[WaitingRequest, Exception] | None = None  # the request for which the policy raised an error
    charges: list[tuple[int, Charge]] = field(default_factory=list)  # by attempt, where tenants share

    def placed(self, waiting: WaitingRequest, decision: Decision, queue: ModelQueue) -> None:
        """Take a request that was placed out of the queue, and have its tenant charged."""
        charge = queue.place(waiting, decision.prediction.output_tokens)
        if charge is not None:
            self.charges.append((decision.attempt_number, charge))
        self.decisions.append(decision)
