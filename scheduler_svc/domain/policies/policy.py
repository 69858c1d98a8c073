"""A policy: who goes next and where, under one name."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.objectives.objective import Objective
from scheduler_svc.domain.ordering.base import Ordering
from scheduler_svc.domain.policies.governor import Governor


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """An ordering (who goes next), an objective (where), and whether engines get the request's class."""

    name: str
    summary: str  # one line
    ordering: Ordering
    objective: Objective
    lacks: str = ""  # of a policy for comparison only: what it ignores, in words; empty for others
    engine_classes: bool = True  # whether the engine is told each request's class; else all are NORMAL there
    keeps_order: bool = False  # whether one that waits is overtaken only where it lacks KV memory
    governor: Governor | None = None  # if set, a policy that it chooses orders and places requests
    governed_by: str = ""  # name of the policy whose governor chose this one

    @property
    def warning(self) -> str:
        """What an operator should know before serving people with this policy; empty if there is nothing."""
        return f"{self.name} is for comparison, not for service: it {self.lacks}" if self.lacks else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySwitch:
    """A change of the policy that is followed."""

    from_policy: str
    to_policy: str
    reason: str  # in words
    at: float  # seconds on the scheduler's clock
