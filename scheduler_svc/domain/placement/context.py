"""What one scheduling pass works with."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.policies.policy import Policy


@dataclass(slots=True)
class PassContext:
    """The model's instances, the policy that is followed, and the time; the same for a whole pass."""

    pool: Pool
    policy: Policy
    now: float  # seconds on the scheduler's clock
