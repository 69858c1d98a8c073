"""The objective that meets targets with the most to spare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import count, highest, lowest
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import pick
from scheduler_svc.domain.objectives.rejected import Rejected
from scheduler_svc.domain.objectives.scorers import Scores
from scheduler_svc.domain.objectives.target_shares import TargetShares, reject_missed
from scheduler_svc.domain.prediction.margin import MOST_MARGIN
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets

#: Shares closer than this count as equal.
_TOLERANCE = 0.01
#: Where less of the targets is used, they are met with any margin.
_DOUBTFUL = 1 / MOST_MARGIN


class LeastTargetUsed:
    """Chooses the instance predicted to use the least share of the request's targets.

    If none is predicted to meet them, and for requests without targets, it chooses the earliest predicted
    finish.  If several meet the targets, those that run the request at once go before those where it queues at the
    engine.
    """

    reserved_slots = 0

    def __init__(self, defaults: Mapping[Priority, Targets]) -> None:
        self._shares = TargetShares(defaults)

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the least share of the targets, else the earliest finish."""
        starts = scorers.start_s(accounts, now)
        firsts = scorers.first_token_s(accounts, demand, starts)
        per_token = scorers.token_s(accounts, demand)
        shares = self._shares.of(demand, accounts, now, first_tokens=firsts, per_token=per_token)
        scores: dict[str, Scores] = {"target_share": shares, "first_token_s": firsts, "token_s": per_token}
        least, most = lowest(shares), highest(shares)
        times = self._shares.least_times(demand, accounts, now, firsts, per_token) if least > _DOUBTFUL else None
        ranked = shares
        if least > 1 or most == 0:
            ranked = scores["finish_s"] = scorers.finish_s(demand, firsts, per_token)
        if least > 1:
            index = pick(accounts, ranked, cached=demand.cached_tokens)
            why = f"no candidate is predicted to meet its targets: earliest finish {ranked[index]:.2f} s"
            return Choice(index=index, why=why, rule="none_meets_targets", scores=scores, least_times=times)
        meets = shares <= 1
        at_once = meets & (figures_of(accounts).free_slots > 0)
        among = at_once if count(at_once) else meets
        index = pick(accounts, ranked, among=among, relative=_TOLERANCE, cached=demand.cached_tokens)
        rejected = Rejected()
        if most > 1:
            reject_missed(rejected, shares)
        why = (
            f"uses {float(shares[index]):.0%} of its targets, the least "
            f"(first token {float(firsts[index]):.2f} s, then {float(per_token[index]) * 1e3:.1f} ms per token)"
        )
        return Choice(
            index=index, why=why, rule="least_target_used", scores=scores, rejected=rejected, least_times=times
        )
