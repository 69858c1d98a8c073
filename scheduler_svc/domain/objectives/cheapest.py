"""The objective that spends least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Mask, count, highest, lowest
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.instances_in_use import InstancesInUse
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import pick, pick_of
from scheduler_svc.domain.objectives.rejected import Rejected
from scheduler_svc.domain.objectives.scorers import Scores
from scheduler_svc.domain.objectives.target_shares import TargetShares, reject_missed
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets

#: A request waits for an instance in use as long as another one would use no more of its targets than this.
_PATIENCE = 0.5
#: Most of its targets that a request may be predicted to use where it goes: the rest is for what comes after it.
_HEADROOM = 0.65
_COST_TOLERANCE = 1e-12
_MOST_MODELS = 1_024  # whose instances in use are remembered


class CheapestInTime:
    """Gathers the load on the cheapest instances that can carry it within its targets; the others stay unused.

    Among the instances in use (``InstancesInUse``) it chooses the one predicted to use the least share of the request's
    targets.  If all of them have enough prompts ahead, the request waits while it can.  If it cannot, or is predicted
    to use more than ``_HEADROOM`` of its targets on those in use, the cheapest other instance is taken into use.
    """

    reserved_slots = 0
    gathers_load = True  # so an instance with much more to do than the mean is no reason to go elsewhere

    def __init__(self, defaults: Mapping[Priority, Targets]) -> None:
        self._defaults = defaults
        self._in_use: dict[str, InstancesInUse] = {}  # by model

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose an instance in use that leaves headroom, else the cheapest that does, else the earliest finish."""
        in_use = self._of(demand.request.model)
        able = demand.able or accounts
        in_use.review(able, demand.load, now)
        each = figures_of(accounts)
        prefills = scorers.prefill_s(accounts, demand)
        firsts = scorers.first_step_s(each, now) + prefills
        per_token = scorers.token_s(each, demand)
        shares = TargetShares(demand, self._defaults, now).of(firsts, per_token)
        costs = scorers.cost(accounts, demand, per_token, prefills)
        scores: dict[str, Scores] = {"cost": costs, "target_share": shares}
        rejected = Rejected()
        within, remarks = _within_budget(demand.request.cost_budget, costs, rejected)
        used = in_use.mask(accounts)
        mine = (_and(used, within) & each.with_free_slot).nonzero()[0]
        most, number = highest(shares), len(mine)
        meets = mine[shares[mine] <= _HEADROOM] if most > _HEADROOM else mine
        if len(meets):
            index = pick_of(each, shares, meets)
            rule, why = "in_use", f"uses {float(shares[index]):.0%} of its targets, the least of {number} in use"
        elif not number and _is_patient(shares[_and(~used, within)]) and in_use.soon_has_capacity(able):
            return Choice(index=0, why="waits for an instance in use", rule="waits", scores=scores, waits=True)
        elif count(others := _and(~used, within) & (shares <= _HEADROOM)) and not (number and in_use.excuses):
            index = pick(accounts, costs, among=others, tolerance=_COST_TOLERANCE)
            rule, why = "cheapest", f"cheapest predicted cost {costs[index]:.6f} beside {number} in use"
        else:
            finishes = scores["finish_s"] = scorers.finish_s(demand, firsts, per_token)
            index = pick_of(each, finishes, mine) if number else _least(accounts, finishes, within)
            rule = "none_meets_targets"
            why = f"no instance in use is predicted to meet its targets: earliest finish {finishes[index]:.2f} s"
        if rule != "none_meets_targets" and most > 1:
            reject_missed(rejected, shares)
        if rule == "in_use" and demand.request.session:  # it shall not go back to one that is to stay unused
            rejected.add(~used, lambda _: ("not_in_use", "is not in use"))
        in_use.take(accounts[index], now, risk=_risk(float(shares[index])))
        return Choice(index=index, why=why, rule=rule, scores=scores, remarks=remarks, rejected=rejected)

    def _of(self, model: str) -> InstancesInUse:
        """Return what is in use of a model; the model that came first is forgotten where there are too many."""
        found = self._in_use.get(model)
        if found is None:
            if len(self._in_use) >= _MOST_MODELS:
                del self._in_use[next(iter(self._in_use))]
            found = self._in_use[model] = InstancesInUse()
        return found


def _risk(share: float) -> float:
    """Estimate how likely a request misses its targets, [0, 1], by the share of them that it is predicted to use."""
    if share <= _HEADROOM:
        return 0.0
    return min((share - _HEADROOM) / (1 - _HEADROOM), 1.0) ** 2


def _is_patient(unused: Scores) -> bool:
    """Whether a request can wait: the instances that are not in use would still meet its targets later, or never.

    ``unused``: the shares of its targets that it would use there.
    """
    return not len(unused) or not _PATIENCE < lowest(unused) <= 1


def _and(mask: Mask, within: Mask | None) -> Mask:
    """Return for which accounts both masks hold; ``within`` is None where it holds for all."""
    return mask if within is None else mask & within


def _least(accounts: Sequence[Account], scores: Scores, among: Mask | None) -> int:
    """Return the index of the least score of those that the mask holds for, None: of all; a free slot goes first."""
    free = _and(figures_of(accounts).with_free_slot, among)
    return pick(accounts, scores, among=free if count(free) else among)


def _within_budget(budget: float | None, costs: Scores, rejected: Rejected) -> tuple[Mask | None, tuple[str, ...]]:
    """Return whose cost is within the budget, None for all if none is or there is none, and what to say of it.

    Those over the budget are entered in ``rejected``.
    """
    if budget is None:
        return None, ()
    within = costs <= budget
    if not count(within):
        least = f"the least predicted cost is {lowest(costs):.6f}, the budget {budget:.6f}"
        return None, (f"over budget everywhere: {least}",)
    rejected.add(~within, lambda i: ("budget", f"predicted cost {costs[i]:.6f} is over the budget"))
    return within, ()
