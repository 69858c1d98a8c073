"""What became of one request of a trace."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.targets import Targets


class End(Enum):
    """How a request ended."""

    FINISHED = "finished"
    EXPIRED = "expired"  # at its deadline
    REFUSED = "refused"  # at the door: its queue was full, or no instance can serve it
    CANCELLED = "cancelled"  # by its client
    FAILED = "failed"  # after its last attempt, or because no instance has served its model for a while


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one request.  Times are seconds since the trace began, as the caller sees them."""

    request: TracedRequest
    end: End
    ended_at: float
    targets: Targets  # that it was held to: its own, or its class's where it states none
    placed_at: float | None = None
    instance_id: str = ""  # that it was placed on last; of a split one, the decode instance
    attempts: int = 0  # placements
    split: bool = False  # whether it was placed on a pair of instances last
    first_token_at: float | None = None
    output_tokens: int = 0  # of a finished one
    why: str = ""  # of a refusal or a failure

    @property
    def queue_wait_s(self) -> float | None:
        """Seconds from arrival to placement; None if it was never placed."""
        return None if self.placed_at is None else self.placed_at - self.request.arrival_s

    @property
    def ttft_s(self) -> float | None:
        """Seconds from arrival to the first token; None without one."""
        return None if self.first_token_at is None else self.first_token_at - self.request.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Seconds per output token after the first; None if it did not finish or has no second token."""
        if self.end is not End.FINISHED or self.first_token_at is None or self.output_tokens < 2:
            return None
        return (self.ended_at - self.first_token_at) / (self.output_tokens - 1)

    @property
    def in_target(self) -> bool:
        """Whether it finished within every target and its deadline."""
        if self.end is not End.FINISHED or self.ttft_s is None:
            return False
        deadline_s = self.request.deadline_s
        return (
            (self.targets.ttft_s is None or self.ttft_s <= self.targets.ttft_s)
            and (self.targets.tpot_s is None or self.tpot_s is None or self.tpot_s <= self.targets.tpot_s)
            and (deadline_s is None or self.ended_at - self.request.arrival_s <= deadline_s)
        )
