"""What one scheduling pass works with."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.pool import Pool


@dataclass(slots=True)
class PassContext:
    """The model's instances, the policy that is followed, and the time; the same for a whole pass."""

    pool: Pool
    policy: Policy
    now: float  # seconds on the scheduler's clock
