"""The objective that meets targets with the most to spare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import highest, lowest
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.delays import with_delays
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import pick, pick_of
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

    Where some instance holds a part of the prompt in its prefix cache, it chooses the earliest finish, weighed with
    what the request's prefill delays, whatever targets that keeps: to compute anew what a cache holds makes others
    miss theirs.
    """

    reserved_slots = 0

    def __init__(self, defaults: Mapping[Priority, Targets]) -> None:
        self._shares = TargetShares(defaults)

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the least share of the targets, else the earliest finish."""
        prefills = scorers.prefill_s(accounts, demand)
        firsts = scorers.first_token_after_s(accounts, prefills, now)
        per_token = scorers.token_s(accounts, demand)
        shares = self._shares.of(demand, accounts, now, first_tokens=firsts, per_token=per_token)
        scores: dict[str, Scores] = {"target_share": shares, "first_token_s": firsts, "token_s": per_token}
        least, most = lowest(shares), highest(shares)
        times = self._shares.least_times(demand, accounts, now, firsts, per_token) if least > _DOUBTFUL else None
        if demand.cached_tokens:
            return _choose_by_cache(demand, accounts, scores, prefills, times)
        if least > 1 or most == 0:
            scores["finish_s"] = scorers.finish_s(demand, firsts, per_token)
        index = _pick(accounts, scores.get("finish_s", shares), shares, least, most)
        if least > 1:
            finish_s = float(scores["finish_s"][index])
            why = f"no candidate is predicted to meet its targets: earliest finish {finish_s:.2f} s"
            return Choice(index=index, why=why, rule="none_meets_targets", scores=scores, least_times=times)
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

    def index_of_choice(self, demand: Demand, accounts: Sequence[Account], now: float) -> int:
        """Return the index that ``choose`` chooses."""
        prefills = scorers.prefill_s(accounts, demand)
        firsts = scorers.first_token_after_s(accounts, prefills, now)
        per_token = scorers.token_s(accounts, demand)
        if demand.cached_tokens:
            weighed = with_delays(scorers.finish_s(demand, firsts, per_token), prefills)
            return _pick_by_cache(demand, accounts, weighed)
        shares = self._shares.of(demand, accounts, now, first_tokens=firsts, per_token=per_token)
        least, most = lowest(shares), highest(shares)
        ranked = scorers.finish_s(demand, firsts, per_token) if least > 1 or most == 0 else shares
        return _pick(accounts, ranked, shares, least, most)


def _pick(accounts: Sequence[Account], ranked: Scores, shares: Scores, least: float, most: float) -> int:
    """Return the index of the least score of those that meet the targets, a free slot first; of all if none does.

    ``least``, ``most``: of ``shares``.
    """
    if least > 1:
        return pick(accounts, ranked)
    free = figures_of(accounts).with_free_slot
    meets = shares <= 1 if most > 1 else None
    rows = (free if meets is None else meets & free).nonzero()[0]
    if not len(rows):
        return pick(accounts, ranked, among=meets, relative=_TOLERANCE)
    return pick_of(accounts, ranked, rows, relative=_TOLERANCE)


def _pick_by_cache(demand: Demand, accounts: Sequence[Account], weighed: Scores) -> int:
    """Return the index of the least weighed finish; a free slot goes first."""
    rows = figures_of(accounts).with_free_slot.nonzero()[0]
    return pick_of(accounts, weighed, rows if len(rows) else None, cached=demand.cached_tokens)


def _choose_by_cache(
    demand: Demand,
    accounts: Sequence[Account],
    scores: dict[str, Scores],
    prefills: Scores,
    times: tuple[float, float] | None,
) -> Choice:
    """Choose the earliest finish, weighed with what the request's prefill delays; a free slot goes first."""
    finishes = scores["finish_s"] = scorers.finish_s(demand, scores["first_token_s"], scores["token_s"])
    weighed = scores["finish_and_prefill_s"] = with_delays(finishes, prefills)
    index = _pick_by_cache(demand, accounts, weighed)
    why = (
        f"earliest predicted finish {float(finishes[index]):.2f} s, "
        f"{float(weighed[index]):.2f} s weighed with its prefill; "
        f"uses {float(scores['target_share'][index]):.0%} of its targets"
    )
    rule = "least_target_used" if lowest(scores["target_share"]) <= 1 else "none_meets_targets"
    return Choice(index=index, why=why, rule=rule, scores=scores, least_times=times)
