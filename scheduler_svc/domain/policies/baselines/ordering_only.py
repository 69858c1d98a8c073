"""Makes the policies that differ in who goes next, and place by the least predicted work."""

from __future__ import annotations

from scheduler_svc.domain.ordering.base import Ordering
from scheduler_svc.domain.policies.baselines.least_predicted_work import LeastPredictedWork
from scheduler_svc.domain.policies.policy import Policy


def ordering_only(name: str, ordering: Ordering, *, first: str, ignores: str) -> Policy:
    """Make a policy that orders by ``ordering`` and places by the least predicted work.

    ``first``: which request goes first, in words.  ``ignores``: what the order does not take into account.
    """
    return Policy(
        name=name,
        summary=f"for comparison: {first} first; to the instance with the least predicted seconds of work",
        lacks=f"ignores {ignores}, budgets, prices, cached prefixes",
        ordering=ordering,
        objective=LeastPredictedWork(),
        engine_classes=False,
    )
