"""The objective that spends least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mypy_extensions import mypyc_attr

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of, some_of
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Figures, Mask, Rows, count, highest, lowest
from scheduler_svc.domain.objectives import late_everywhere, one_candidate, scorers
from scheduler_svc.domain.objectives.crowded import all_crowded
from scheduler_svc.domain.objectives.held_back import HEADROOM, held_back, makes_late, may_wait
from scheduler_svc.domain.objectives.instances_in_use import InstancesInUse
from scheduler_svc.domain.objectives.late_everywhere import LateEverywhere, too_late_only_there
from scheduler_svc.domain.objectives.late_scores import LateScores
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import pick, pick_of
from scheduler_svc.domain.objectives.rejected import Rejected
from scheduler_svc.domain.objectives.scorers import Scores
from scheduler_svc.domain.objectives.target_shares import TargetShares, reject_missed
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets, ttft_target_of

#: A request waits for an instance in use as long as another one would use no more of its targets than this.
_PATIENCE = 0.5
#: Most of its targets that a request may be predicted to use where it goes: the rest is for what comes after it.
_HEADROOM = 0.8
_COST_TOLERANCE = 1e-12
_NOT_BY_TARGETS = ("none_meets_targets", late_everywhere.RULE)
_WAITS = "waits for an instance in use"
_MOST_MODELS = 1_024  # whose instances in use are remembered


@dataclass(slots=True, kw_only=True)
class _Scored:
    """The accounts that a request may go to, with what is predicted of it there: columns of one entry each."""

    demand: Demand
    accounts: Sequence[Account]
    each: Figures  # of the accounts
    targets: TargetShares  # the request's
    now: float
    firsts: Scores  # seconds until the first token
    per_token: Scores
    shares: Scores  # of its targets
    costs: LateScores
    within: Mask | None  # whose cost is within its budget; None: all
    used: Mask  # which are in use
    mine: Rows  # those in use that are within its budget and have a free slot

    @property
    def unused(self) -> Mask:
        """Which are not in use and within its budget."""
        return _and(~self.used, self.within)


@mypyc_attr(allow_interpreted_subclasses=True)  # policies of others may extend it
class CheapestInTime:
    """Gathers the load on the cheapest instances that can carry it within its targets; the others stay unused.

    Among the instances in use (``InstancesInUse``) it chooses the one predicted to use the least share of the request's
    targets, and of the targets of those that run there.  A request that can wait does so while it would make those
    late, or while all in use have enough prompts ahead.  If it cannot wait, and is predicted to use more than
    ``_HEADROOM`` of its targets on those in use, the cheapest other instance is taken into use.
    """

    reserved_slots = 0
    gathers_load = True  # so an instance with much more to do than the mean is no reason to go elsewhere

    def __init__(self, defaults: Mapping[Priority, Targets]) -> None:
        self._defaults = defaults
        self._in_use: dict[str, InstancesInUse] = {}  # by model

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose an instance in use that leaves headroom, else the cheapest that does, else the earliest finish."""
        in_use = self._of(demand.request.model)
        in_use.review(demand.able or accounts, demand.load, now)
        targets = TargetShares(demand, self._defaults, now)
        patient = may_wait(demand, self._defaults, now)
        if patient and all_crowded(demand, accounts, in_use, targets, now, headroom=_HEADROOM):
            return held_back({})
        each = figures_of(accounts)
        prefills = scorers.prefill_s(accounts, demand)
        firsts = scorers.first_step_s(each, now) + prefills
        per_token = scorers.token_s(each, demand)
        shares = targets.of(firsts, per_token)
        costs = _costs(each, demand, per_token, prefills)
        rejected = Rejected()
        within, remarks = _within_budget(demand.request.cost_budget, costs, rejected)
        used = in_use.mask(accounts)
        mine = (_and(used, within) & each.with_free_slot).nonzero()[0]
        scored = _Scored(
            demand=demand,
            accounts=accounts,
            each=each,
            targets=targets,
            now=now,
            firsts=firsts,
            per_token=per_token,
            shares=shares,
            costs=costs,
            within=within,
            used=used,
            mine=mine,
        )
        most = highest(shares)
        meets = mine[shares[mine] <= _HEADROOM] if most > _HEADROOM else mine
        choice = self._among_used(scored, meets) if len(meets) else self._beside_used(scored, in_use)
        choice.remarks, choice.rejected = remarks, rejected
        if choice.waits:
            return choice
        if choice.rule not in _NOT_BY_TARGETS and most > 1:
            reject_missed(rejected, shares)
        if choice.rule == "in_use" and demand.request.session:  # it shall not go back to one that is to stay unused
            rejected.add(~used, lambda _: ("not_in_use", "is not in use"))
        in_use.take(accounts[choice.index], demand.able or accounts, now, risk=_risk(float(shares[choice.index])))
        return choice

    def choose_only(self, demand: Demand, account: Account, now: float) -> Choice:
        """Choose the only account, whose cache holds nothing of the prompt, or have the request wait."""
        request = demand.request
        if request.cost_budget is not None or request.session:
            return self.choose(demand, (account,), now)  # seldom: what is said of these needs columns
        in_use = self._of(request.model)
        in_use.review(demand.able or (account,), demand.load, now)
        targets = TargetShares(demand, self._defaults, now)
        prefill_s, token_s = one_candidate.prefill_s(account, demand), one_candidate.token_s(account, demand)
        first_s = one_candidate.first_step_s(account, now) + prefill_s
        share = targets.of_one(first_s, token_s)
        scores = {"cost": (one_candidate.cost(account, demand, token_s, prefill_s),), "target_share": (share,)}
        patient = may_wait(demand, self._defaults, now)
        mine = account.free_slots > 0 and account.instance_id in in_use
        if mine and share <= _HEADROOM:
            if max(share, token_s / account.tightest_token_s) > _HEADROOM:
                return held_back(scores) if patient else self.choose(demand, (account,), now)
            why = f"uses {share:.0%} of its targets, one of 1 in use"
            choice = Choice(index=0, why=why, rule="in_use", scores=scores)
        else:
            choice = _only_beside_used(demand, account, in_use, share, scores, now, can_wait=patient)
            if mine and choice.rule == "none_meets_targets":
                return self.choose(demand, (account,), now)  # others may be where it goes
            choice.least_times = targets.least_times_of_one(account, first_s, token_s, share=share)
            if choice.rule == "none_meets_targets":
                finish_s = first_s + float(demand.output_tokens - 1) * token_s
                choice.scores = {**scores, "finish_s": (finish_s,)}
                choice.why = _none_meets(finish_s)
        if not choice.waits:
            in_use.take(account, demand.able or (account,), now, risk=_risk(share))
        return choice

    def _among_used(self, scored: _Scored, meets: Rows) -> Choice:
        """Choose among instances in use that leave headroom, or have the request wait rather than make others late."""
        shares, tightest = scored.shares, scored.each.tightest_token_s
        crowding: Scores = np.maximum(shares, scored.per_token / tightest)
        scores: dict[str, Scores | LateScores] = {"cost": scored.costs, "target_share": shares}
        roomy = meets[crowding[meets] <= _HEADROOM]
        if not len(roomy) and may_wait(scored.demand, self._defaults, scored.now):
            return held_back(scores)
        index = pick_of(scored.each, crowding, roomy if len(roomy) else meets)
        why = f"uses {float(shares[index]):.0%} of its targets, one of {len(scored.mine)} in use"
        return Choice(index=index, why=why, rule="in_use", scores=scores)

    def _beside_used(self, scored: _Scored, in_use: InstancesInUse) -> Choice:
        """Choose for a request that no instance in use leaves headroom: it waits, or another one is taken into use."""
        accounts, shares, unused, number = scored.accounts, scored.shares, scored.unused, len(scored.mine)
        scores: dict[str, Scores | LateScores] = {"cost": scored.costs, "target_share": shares}
        times = scored.targets.least_times(scored.each, scored.firsts, scored.per_token, least_share=lowest(shares))
        others = unused & (shares <= _HEADROOM)
        patient = _is_patient(shares[unused]) and (not number or may_wait(scored.demand, self._defaults, scored.now))
        if (patient or (not number and in_use.excuses)) and _has_room_soon(scored, in_use):
            return Choice(index=0, why=_WAITS, rule="waits", scores=scores, waits=True, least_times=times)
        if count(others) and not (number and in_use.excuses):
            prices = scored.costs.column * in_use.price_factors(accounts, scored.now)
            index = pick(accounts, prices, among=others, tolerance=_COST_TOLERANCE)
            why = f"cheapest predicted cost {scored.costs[index]:.6f} beside {number} in use"
            return Choice(index=index, why=why, rule="cheapest", scores=scores, least_times=times)
        finishes = scores["finish_s"] = scorers.finish_s(scored.demand, scored.firsts, scored.per_token)
        row, waits = self._crowd(scored, in_use) if number else (None, False)
        if waits:
            return held_back(scores, why=late_everywhere.WAITS)
        if row is not None:
            why, rule = late_everywhere.WHY, late_everywhere.RULE
            return Choice(index=row, why=why, rule=rule, scores=scores, least_times=times)
        index = pick_of(scored.each, finishes, scored.mine) if number else _least(accounts, finishes, scored.within)
        why = _none_meets(float(finishes[index]))
        return Choice(index=index, why=why, rule="none_meets_targets", scores=scores, least_times=times)

    def _crowd(self, scored: _Scored, in_use: InstancesInUse) -> tuple[int | None, bool]:
        """Return the row of the instance in use where those who run are the latest, or whether to wait for it.

        Only where somebody who runs is late for it on each of those that it may go to.
        """
        demand, mine = scored.demand, scored.mine
        request = demand.request
        if demand.started or demand.decode_leg or demand.cached_tokens or scored.within is not None:
            return None, False
        if request.preferred_instance or request.session:
            return None, False
        late = makes_late(scored.accounts, demand, scored.targets.token_s)
        if late is None or not late[mine].all():
            return None, False
        due = scored.targets.of_due(scored.firsts, scored.per_token)
        least_due = 0.0 if due is None else lowest(due[mine])
        patient = may_wait(demand, self._defaults, scored.now) and least_due <= HEADROOM
        able = demand.able or scored.accounts
        used = some_of(able, in_use.mask(able))
        everywhere = LateEverywhere(demand, used, scored.accounts, scored.targets.token_s, scored.now)
        row, waits = everywhere.settle(patient=patient, ttft_s=ttft_target_of(request, self._defaults) or 0.0)
        return None if too_late_only_there(row, due, least_due) else row, waits

    def _of(self, model: str) -> InstancesInUse:
        """Return what is in use of a model; the model that came first is forgotten where there are too many."""
        found = self._in_use.get(model)
        if found is None:
            if len(self._in_use) >= _MOST_MODELS:
                del self._in_use[next(iter(self._in_use))]
            found = self._in_use[model] = InstancesInUse()
        return found


def _only_beside_used(
    demand: Demand,
    account: Account,
    in_use: InstancesInUse,
    share: float,
    scores: Mapping[str, Sequence[float]],
    now: float,
    *,
    can_wait: bool,
) -> Choice:
    """Choose as ``_beside_used`` does where one account is offered: it has no free slot, or is not in use."""
    used = account.instance_id in in_use
    mine = used and account.free_slots > 0
    patient = (used or not _PATIENCE < share <= 1) and (can_wait or not mine)
    waits = patient or (in_use.excuses and not mine)
    if waits and len(in_use.soon_with_capacity(demand.able or (account,), demand.tokens, now)):
        return Choice(index=0, why=_WAITS, rule="waits", scores=scores, waits=True)
    if not used and share <= _HEADROOM:
        why = f"cheapest predicted cost {scores['cost'][0]:.6f} beside 0 in use"
        return Choice(index=0, why=why, rule="cheapest", scores=scores)
    return Choice(index=0, why="", rule="none_meets_targets", scores=scores)


def _none_meets(finish_s: float) -> str:
    """Say that no instance in use meets the targets."""
    return f"no instance in use is predicted to meet its targets: earliest finish {finish_s:.2f} s"


def _has_room_soon(scored: _Scored, in_use: InstancesInUse) -> bool:
    """Whether an instance in use that has none now has room for the request in time."""
    demand = scored.demand
    soon = in_use.soon_with_capacity(demand.able or scored.accounts, demand.tokens, scored.now)
    if len(soon) and (scored.within is None or _any_within_budget(demand, soon)):
        return True
    full = _and(scored.used, scored.within) & (scored.shares <= _HEADROOM)  # a slot is predicted to be free by then
    return count(scored.unused) > 0 and count(full) > 0


def _any_within_budget(demand: Demand, accounts: Sequence[Account]) -> bool:
    """Whether the predicted cost on one of the accounts is within the request's budget, which it states."""
    budget = demand.request.cost_budget
    return budget is None or lowest(scorers.cost(accounts, demand, scorers.token_s(accounts, demand))) <= budget


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


def _costs(each: Figures, demand: Demand, per_token: Scores, prefills: Scores) -> LateScores:
    """Predict the costs; mostly they explain the choice only, so they are worked out when someone reads them."""
    costing, output_tokens = each.costing, demand.output_tokens
    return LateScores(len(per_token), lambda: scorers.cost_by(costing, output_tokens, per_token, prefills))


def _within_budget(budget: float | None, costs: LateScores, rejected: Rejected) -> tuple[Mask | None, tuple[str, ...]]:
    """Return whose cost is within the budget, None for all if none is or there is none, and what to say of it.

    Those over the budget are entered in ``rejected``.
    """
    if budget is None:
        return None, ()
    within = costs.column <= budget
    if not count(within):
        least = f"the least predicted cost is {lowest(costs.column):.6f}, the budget {budget:.6f}"
        return None, (f"over budget everywhere: {least}",)
    rejected.add(~within, lambda i: ("budget", f"predicted cost {costs[i]:.6f} is over the budget"))
    return within, ()
