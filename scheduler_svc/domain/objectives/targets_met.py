"""The objective that meets targets and keeps capacity for tight ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import pick
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets, effective_targets

_INF = float("inf")


class FullestThatMeets:
    """Chooses the fullest instance predicted to meet the request's targets; if none is, the earliest predicted finish.

    If several meet the targets, those that run the request at once go before those where it queues at the engine.
    """

    reserved_slots = 0

    def __init__(self, defaults: Mapping[Priority, Targets]) -> None:
        self._defaults = defaults

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the fullest instance that meets the targets, else the earliest finish."""
        starts = scorers.start_s(accounts, now)
        firsts = scorers.first_token_s(accounts, demand, starts)
        per_token = scorers.token_s(accounts, demand)
        finishes = scorers.finish_s(demand, firsts, per_token)
        emptiness = scorers.emptiness(accounts)
        ttft, tpot, end = self._limits(demand, now)
        met: Sequence[int] = range(len(accounts))
        if max(firsts) > ttft or max(per_token) > tpot or max(finishes) > end:
            met = [
                i
                for i, (f, t, e) in enumerate(zip(firsts, per_token, finishes, strict=True))
                if f <= ttft and t <= tpot and e <= end
            ]
        scores = {"finish_s": finishes, "first_token_s": firsts, "token_s": per_token, "emptiness": emptiness}
        if not met:
            index = pick(accounts, finishes)
            why = f"no candidate is predicted to meet its targets: earliest finish {finishes[index]:.2f} s"
            return Choice(index=index, why=why, rule="none_meets_targets", scores=scores)
        index = fullest(accounts, emptiness, met)
        why = (
            f"fullest of {len(met)} predicted to meet its targets "
            f"(first token {firsts[index]:.2f} s, {1 - emptiness[index]:.0%} full)"
        )
        rejected = _rejected(len(accounts), met)
        return Choice(index=index, why=why, rule="fullest_in_targets", scores=scores, rejected=rejected)

    def _limits(self, demand: Demand, now: float) -> tuple[float, float, float]:
        """Return seconds from now that first token, each further token and the end may take."""
        request = demand.request
        targets = effective_targets(request, self._defaults)
        ttft = _INF if targets.ttft_s is None or demand.started else request.arrived_at + targets.ttft_s - now
        tpot = _INF if targets.tpot_s is None else targets.tpot_s
        end = _INF if request.target_at is None else request.target_at - now
        return ttft, tpot, end


def fullest(accounts: Sequence[Account], emptiness: Sequence[float], among: Sequence[int]) -> int:
    """Return the index of the fullest of ``among``; instances with a free slot go first."""
    running = [i for i in among if accounts[i].free_slots > 0] or among
    best = min([emptiness[i] for i in running])
    equal = [i for i in running if emptiness[i] <= best]
    return min(equal, key=lambda i: (accounts[i].last_chosen, accounts[i].instance_id))


def _rejected(n: int, met: Sequence[int]) -> Mapping[int, tuple[str, str]]:
    if len(met) == n:
        return {}
    keep = set(met)
    reason = ("targets", "predicted to miss a target")
    return {i: reason for i in range(n) if i not in keep}
