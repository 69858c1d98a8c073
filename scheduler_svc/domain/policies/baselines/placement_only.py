"""Makes the policies that differ in where they send a request, and serve in order of arrival."""

from __future__ import annotations

from scheduler_svc.domain.objectives.objective import Objective
from scheduler_svc.domain.ordering.fifo import Fifo
from scheduler_svc.domain.policies.policy import Policy

#: What no policy that only places takes into account.
IGNORES_CALLERS = "classes, targets, deadlines, budgets and prices"


def placement_only(name: str, objective: Objective, *, to: str, ignores: str) -> Policy:
    """Make a policy that serves in order of arrival and places by ``objective``.

    ``to``: which instance a request goes to, in words.  ``ignores``: what placement does not take into account, beside
    what no such policy does.
    """
    return Policy(
        name=name,
        summary=f"for comparison: first come, first served; to {to}",
        lacks=f"ignores {ignores}, {IGNORES_CALLERS}",
        ordering=Fifo(),
        objective=objective,
        engine_classes=False,
    )
