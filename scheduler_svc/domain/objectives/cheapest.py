"""The objective that spends least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import pick
from scheduler_svc.domain.objectives.target_shares import TargetShares, missed
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets

_RELATIVE_TOLERANCE = 0.02
_COST_TOLERANCE = 1e-12


class CheapestInTime:
    """Chooses the cheapest predicted cost among instances that meet the request's targets, with margin, and budget.

    Cost is price x predicted busy share, so a busy instance is cheaper than an idle one at the same price: load
    gathers on few instances, as far as the targets allow, and the others may be switched off.  Among equally cheap
    instances it chooses the emptier.
    """

    reserved_slots = 0
    gathers_load = True  # so an instance with much more to do than the mean is no reason to go elsewhere

    def __init__(self, defaults: Mapping[Priority, Targets]) -> None:
        self._shares = TargetShares(defaults)

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the cheapest instance that meets the targets, else the earliest finish."""
        firsts = scorers.first_token_s(accounts, demand, scorers.start_s(accounts, now))
        per_token = scorers.token_s(accounts, demand)
        shares = self._shares.of(demand, accounts, now, first_tokens=firsts, per_token=per_token, margin=True)
        costs = scorers.cost(accounts, demand, per_token)
        scores = {"cost": costs, "target_share": shares}
        budget = demand.request.cost_budget
        if min(shares) > 1:
            finishes = scores["finish_s"] = scorers.finish_s(demand, firsts, per_token)
            index = pick(accounts, finishes, cached=demand.cached_tokens)
            why = f"no candidate is predicted to meet its targets: earliest finish {finishes[index]:.2f} s"
            remarks = _over_budget(budget, costs[index])
            return Choice(index=index, why=why, rule="none_meets_targets", scores=scores, remarks=remarks)
        rejected = missed(shares) if max(shares) > 1 else {}
        among = [i for i, share in enumerate(shares) if share <= 1]
        remarks = ()
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
        # Instances with a free slot go first: waiting in an engine's queue saves nothing.
        among = [i for i in among if accounts[i].free_slots > 0] or among
        chosen_from = [accounts[i] for i in among]
        cheapest = pick(
            chosen_from,
            [costs[i] for i in among],
            tolerance=_COST_TOLERANCE,
            relative=_RELATIVE_TOLERANCE,
            cached=demand.cached_tokens,
        )
        index = among[cheapest]
        why = f"cheapest predicted cost {costs[index]:.6f}, uses {shares[index]:.0%} of its targets with margin"
        return Choice(index=index, why=why, rule="cheapest", scores=scores, remarks=remarks, rejected=rejected)


def _over_budget(budget: float | None, cost: float) -> tuple[str, ...]:
    if budget is None or cost <= budget:
        return ()
    return (f"over budget everywhere: the least predicted cost is {cost:.6f}, the budget {budget:.6f}",)
