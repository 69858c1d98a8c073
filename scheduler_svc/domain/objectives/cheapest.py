"""The objective that spends least."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import pick

_RELATIVE_TOLERANCE = 0.02


class CheapestInTime:
    """Chooses the cheapest predicted cost among instances that meet the request's deadline and budget.

    Cost is price x predicted busy share, so a busy instance is cheaper than an idle one at the same price: load
    gathers on few instances and the others may be switched off.  Among equally cheap instances it chooses the fullest.
    """

    reserved_slots = 0

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the cheapest instance in time, else the earliest finish."""
        starts = scorers.start_s(accounts, now)
        per_token = scorers.token_s(accounts, demand)
        finishes = scorers.finish_s(demand, scorers.first_token_s(accounts, demand, starts), per_token)
        costs = scorers.cost(accounts, demand, per_token)
        scores = {"cost": costs, "finish_s": finishes}
        every = range(len(accounts))
        deadline, budget = demand.request.target_at, demand.request.cost_budget
        remarks: tuple[str, ...] = ()
        rejected: dict[int, tuple[str, str]] = {}
        among: Sequence[int] = every
        if deadline is not None:
            late = [i for i in every if now + finishes[i] > deadline]
            if len(late) == len(accounts):
                index = pick(accounts, finishes)
                why = f"no candidate is predicted to meet the deadline: earliest finish {finishes[index]:.2f} s"
                remarks = _over_budget(budget, costs[index])
                return Choice(index=index, why=why, rule="none_meets_deadline", scores=scores, remarks=remarks)
            rejected.update((i, ("deadline", f"predicted finish {finishes[i]:.2f} s is too late")) for i in late)
            among = [i for i in every if i not in rejected]
        if budget is not None:
            within = [i for i in among if costs[i] <= budget]
            if within:
                rejected.update(
                    (i, ("budget", f"predicted cost {costs[i]:.6f} is over the budget"))
                    for i in among
                    if costs[i] > budget
                )
                among = within
            else:
                remarks = _over_budget(budget, min(costs[i] for i in among))
        index = _cheapest(accounts, costs, among)
        why = f"cheapest predicted cost {costs[index]:.6f}, {accounts[index].fullness:.0%} full"
        return Choice(index=index, why=why, rule="cheapest", scores=scores, remarks=remarks, rejected=rejected)


def _cheapest(accounts: Sequence[Account], costs: Sequence[float], among: Sequence[int]) -> int:
    """Return the index of the cheapest of ``among``; instances with a free slot go first.

    Waiting in an engine's queue saves nothing.
    """
    running = [i for i in among if accounts[i].free_slots > 0] or among
    limit = min(costs[i] for i in running) * (1 + _RELATIVE_TOLERANCE)
    equal = [i for i in running if costs[i] <= limit]
    return fullest(accounts, scorers.emptiness(accounts), equal)


def _over_budget(budget: float | None, cost: float) -> tuple[str, ...]:
    if budget is None or cost <= budget:
        return ()
    return (f"over budget everywhere: the least predicted cost is {cost:.6f}, the budget {budget:.6f}",)


def fullest(accounts: Sequence[Account], emptiness: Sequence[float], among: Sequence[int]) -> int:
    """Return the index of the fullest of ``among``."""
    best = min([emptiness[i] for i in among])
    equal = [i for i in among if emptiness[i] <= best]
    return min(equal, key=lambda i: (accounts[i].last_chosen, accounts[i].instance_id))
