"""The objective that has each request done soonest."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import pick


class EarliestFinish:
    """Chooses the instance where the request is predicted to finish first; equal instances take turns.

    The finish counts the prompts that wait there, the engine's speed and how many share it: a fast engine gets more
    requests than a slow one, until both are predicted to take equally long.
    """

    def __init__(self, *, reserved_slots: int = 0) -> None:
        """``reserved_slots``: slots, 0 or 1, of each instance that only CRITICAL requests may take."""
        self.reserved_slots = reserved_slots

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the instance with the earliest predicted finish."""
        finishes = scorers.whole_run_s(accounts, demand, now)
        index = pick(accounts, finishes, cached=demand.cached_tokens)
        why = f"earliest predicted finish {finishes[index]:.2f} s"
        return Choice(index=index, why=why, rule="earliest_finish", scores={"finish_s": finishes})
