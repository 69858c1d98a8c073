"""The objective that meets targets with the most to spare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mypy_extensions import mypyc_attr

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Column, Mask, Rows, count, highest, lowest
from scheduler_svc.domain.objectives import late_everywhere, one_candidate, scorers
from scheduler_svc.domain.objectives.delays import with_delays
from scheduler_svc.domain.objectives.faster_full import unless_faster_is_full
from scheduler_svc.domain.objectives.held_back import (
    HEADROOM,
    WAITS,
    gives_way,
    held_back,
    makes_late,
    may_wait,
    one_makes_late,
)
from scheduler_svc.domain.objectives.late_everywhere import LateEverywhere, too_late_only_there
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import TIME_TOLERANCE_S, pick_of
from scheduler_svc.domain.objectives.rejected import Rejected
from scheduler_svc.domain.objectives.scorers import Scores
from scheduler_svc.domain.objectives.target_shares import TargetShares, reject_missed
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets, ttft_target_of

#: Shares closer than this count as equal.
_TOLERANCE = 0.01


@mypyc_attr(allow_interpreted_subclasses=True)  # policies of others may extend it
class LeastTargetUsed:
    """Chooses the instance predicted to use the least share of the request's targets.

    If none is predicted to meet them, and for requests without targets, it chooses the earliest predicted
    finish.  If several meet the targets, those that run the request at once go before those where it queues at the
    engine.

    Where some instance holds a part of the prompt in its prefix cache, it chooses the earliest finish, weighed with
    what the request's prefill delays, whatever targets that keeps: to compute anew what a cache holds makes others
    miss theirs.  Those who run where the cache is come first, though: it goes where nobody is late for it, if it is in
    time there.

    Where the time per token would be too long for some who run on an instance, it goes elsewhere; where that is so on
    every instance on which it would be in time itself, it waits, as long as it stays in time (``held_back``): those
    with loose targets give way to those with tight ones.  Where that is so everywhere, and it cannot wait, it goes to
    the instance where those who run are the latest, so that the others stay in time (``LateEverywhere``).
    """

    reserved_slots = 0

    def __init__(self, defaults: Mapping[Priority, Targets]) -> None:
        self._defaults = defaults

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the least share of the targets, else the earliest finish."""
        runs = self._runs(demand, accounts, now)
        if demand.cached_tokens:
            return runs.choose_by_cache(demand.cached_in(accounts))
        return unless_faster_is_full(runs.choose(), demand, accounts, now)

    def _runs(self, demand: Demand, accounts: Sequence[Account], now: float) -> _Runs:
        patient = may_wait(demand, self._defaults, now)
        ttft_s = ttft_target_of(demand.request, self._defaults) or 0.0
        targets = TargetShares(demand, self._defaults, now)
        return _Runs(demand, accounts, targets, now, patient=patient, ttft_s=ttft_s)

    def choose_only(self, demand: Demand, account: Account, now: float) -> Choice:
        """Choose the only account, whose cache holds nothing of the prompt."""
        targets = TargetShares(demand, self._defaults, now)
        if one_makes_late(account, demand, targets.token_s):
            return self.choose(demand, (account,), now)  # that it is the only one now says little: all have to be seen
        token_s = one_candidate.token_s(account, demand)
        first_s = one_candidate.first_step_s(account, now) + one_candidate.prefill_s(account, demand)
        share = targets.of_one(first_s, token_s)
        times = targets.least_times_of_one(account, first_s, token_s, share=share)
        scores: dict[str, Sequence[float]] = {
            "target_share": (share,),
            "first_token_s": (first_s,),
            "token_s": (token_s,),
        }
        if share > 1 or share == 0:
            finish_s = first_s + float(demand.output_tokens - 1) * token_s
            scores["finish_s"] = (finish_s,)
        if share > 1:
            choice = _none_meets(0, scores["finish_s"][0], scores, times)
        else:
            choice = _least_used(0, share, first_s, token_s, scores, times)
        return unless_faster_is_full(choice, demand, (account,), now)

    def choose_sparing(
        self,
        demand: Demand,
        accounts: Sequence[Account],
        now: float,
        *,
        too_loaded: Mask,
        held: Column | None,
    ) -> Choice:
        """Choose by what the others hold, unless it is a too loaded instance whatever caches hold."""
        runs = self._runs(demand, accounts, now)
        return runs.choose_by_cache(held) if held is not None and runs.spares(too_loaded) else runs.choose()


class _Runs:
    """The predicted runs of one request; what does not depend on caches is worked out once."""

    __slots__ = (
        "_crowd",
        "_demand",
        "_each",
        "_late",
        "_now",
        "_offered",
        "_patient",
        "_per_token",
        "_shares",
        "_ttft_s",
        "_why_waits",
    )

    def __init__(
        self,
        demand: Demand,
        offered: Sequence[Account],
        shares: TargetShares,
        now: float,
        *,
        patient: bool,
        ttft_s: float,
    ) -> None:
        """``patient``: whether the request may be held back.  ``ttft_s``: its TTFT target."""
        self._demand = demand
        self._shares = shares
        self._offered = offered
        self._each = each = figures_of(offered)
        self._now = now
        self._per_token = scorers.token_s(each, demand)
        # Where those who run would be late.
        self._late = makes_late(offered, demand, shares.token_s)
        self._patient = patient
        self._ttft_s = ttft_s
        self._why_waits = WAITS
        self._crowd: int | None = None  # where those who run are late already, if the request is to go there

    def hold_back(self) -> Choice:
        """Have the request wait for those who would be late."""
        return held_back({"token_s": self._per_token}, why=self._why_waits, alike=True)

    def spares(self, others: Mask) -> bool:
        """Whether none of the others is chosen with nothing in caches."""
        firsts = self._uncached_first_tokens()
        first_in_turn = int(self._each.turn.argmin())
        if not others[first_in_turn] and self._is_picked(first_in_turn, firsts):
            return True
        index, _, _ = self._pick(firsts, self._shares.of(firsts, self._per_token))
        return not others[index]

    def _is_picked(self, first_in_turn: int, firsts: Scores) -> bool:
        """Whether ``_pick`` picks the account whose turn is first; if so this mostly tells, and in less time.

        It does if that account has a free slot, meets the targets, and its share is as good as equal to the least.
        """
        if self._each.free_slots[first_in_turn] <= 0 or (self._late is not None and self._late[first_in_turn]):
            return False
        shares = self._shares.range_of(first_in_turn, firsts, self._per_token)
        if shares is None:
            return False
        least, own = shares
        return least > 0 and own <= 1 and own <= least + least * _TOLERANCE + TIME_TOLERANCE_S

    def choose(self) -> Choice:
        """Choose with nothing in caches."""
        firsts, per_token = self._uncached_first_tokens(), self._per_token
        shares = self._shares.of(firsts, per_token)
        if self._waits(firsts, shares):
            return self.hold_back()
        index, least, finishes = self._pick(firsts, shares)
        scores: dict[str, Scores] = {"target_share": shares, "first_token_s": firsts, "token_s": per_token}
        if finishes is not None:
            scores["finish_s"] = finishes
        times = self._least_times(firsts, least)
        if index == self._crowd:
            rule, why = late_everywhere.RULE, late_everywhere.WHY
            return Choice(index=index, why=why, rule=rule, scores=scores, least_times=times)
        if finishes is not None and least > 1:
            return _none_meets(index, float(finishes[index]), scores, times)
        choice = _least_used(index, float(shares[index]), float(firsts[index]), float(per_token[index]), scores, times)
        if highest(shares) > 1:
            choice.rejected = rejected = Rejected()
            reject_missed(rejected, shares)
        return choice

    def choose_by_cache(self, held: Column) -> Choice:
        """Choose the earliest finish, weighed with what the request's prefill delays; a free slot goes first."""
        demand, per_token = self._demand, self._per_token
        prefills = scorers.prefill_beside_s(self._each, demand, held)
        firsts = scorers.first_step_s(self._each, self._now) + prefills
        shares = self._shares.of(firsts, per_token)
        if self._waits(firsts, shares):
            return self.hold_back()
        finishes = scorers.finish_s(demand, firsts, per_token)
        weighed = with_delays(finishes, prefills)
        index = pick_of(self._each, weighed, self._rows_by_cache(shares), held=held)
        why = (
            f"earliest predicted finish {float(finishes[index]):.2f} s, "
            f"{float(weighed[index]):.2f} s weighed with its prefill; "
            f"uses {float(shares[index]):.0%} of its targets"
        )
        least = lowest(shares)
        scores = {
            "target_share": shares,
            "first_token_s": firsts,
            "token_s": per_token,
            "finish_s": finishes,
            "finish_and_prefill_s": weighed,
        }
        return Choice(
            index=index,
            why=why,
            rule="least_target_used" if least <= 1 else "none_meets_targets",
            scores=scores,
            least_times=self._least_times(firsts, least),
        )

    def _rows_by_cache(self, shares: Scores) -> Rows | None:
        """Return where it may go by what caches hold: with a free slot, and in time where nobody is late; None: all."""
        free, late = self._each.with_free_slot, self._late
        if late is not None and len(harmless := (free & ~late & (shares <= 1)).nonzero()[0]):
            return harmless
        rows = free.nonzero()[0]
        return rows if len(rows) else None

    def _waits(self, firsts: Scores, shares: Scores) -> bool:
        """Whether the request is held back: wherever it would be in time itself, it would make others late.

        Notes where it is to go if it makes others late everywhere and does not wait.
        """
        late, demand = self._late, self._demand
        if late is None or demand.started:
            return False
        spared = ~late & self._each.with_free_slot
        if count(spared & (shares <= 1)):
            return False
        if self._patient and gives_way(late, shares):
            return True
        request = demand.request
        if demand.decode_leg or demand.cached_tokens or request.preferred_instance or count(spared):
            return False
        due = self._shares.of_due(firsts, self._per_token)
        least_due = 0.0 if due is None else lowest(due)
        patient = self._patient and least_due <= HEADROOM
        if not patient and request.session:
            return False
        everywhere = LateEverywhere(
            demand, demand.able or self._offered, self._offered, self._shares.token_s, self._now
        )
        self._crowd, waits = everywhere.settle(patient=patient, ttft_s=self._ttft_s)
        if too_late_only_there(self._crowd, due, least_due):
            self._crowd = None
        if self._crowd is None and not waits:
            self._late = late & ~everywhere.roomy_among(self._offered)
        if waits and not patient:
            self._why_waits = late_everywhere.WAITS
        return waits

    def _least_times(self, firsts: Scores, least: float) -> tuple[float, float] | None:
        return self._shares.least_times(self._each, firsts, self._per_token, least_share=least)

    def _uncached_first_tokens(self) -> Scores:
        starts = scorers.first_step_s(self._each, self._now)
        return starts + scorers.prefill_beside_s(self._each, self._demand, None)

    def _pick(self, firsts: Scores, shares: Scores) -> tuple[int, float, Scores | None]:
        """Return the index of the least share of those that meet the targets: a free slot first, where nobody is late.

        If none meets them or there are none, that of the earliest finish.  Also returns the least share, and the
        finishes where they decide.
        """
        each = self._each
        least, most = lowest(shares), highest(shares)
        decides_finish = least > 1 or most == 0
        finishes = scorers.finish_s(self._demand, firsts, self._per_token) if decides_finish else None
        ranked = shares if finishes is None else finishes
        if least > 1:
            return self._pick_late(ranked), least, finishes
        free, meets = each.with_free_slot, shares <= 1 if most > 1 else None
        able = free if meets is None else meets & free
        at_once = able.nonzero()[0]
        if self._late is not None:
            if len(harmless := (able & ~self._late).nonzero()[0]):
                at_once = harmless
            elif self._crowd is not None:
                return self._crowd, least, finishes
        in_time = at_once if len(at_once) or meets is None else meets.nonzero()[0]
        return pick_of(each, ranked, in_time if len(in_time) else None, relative=_TOLERANCE), least, finishes

    def _pick_late(self, finishes: Scores) -> int:
        """Return the index of the earliest finish for a request that is late itself, where nobody else is for it."""
        if self._crowd is not None:
            return self._crowd
        late = self._late
        harmless = None if late is None else (self._each.with_free_slot & ~late).nonzero()[0]
        return pick_of(self._each, finishes, harmless if harmless is not None and len(harmless) else None)


def _none_meets(
    index: int,
    finish_s: float,
    scores: Mapping[str, Scores | Sequence[float]],
    least_times: tuple[float, float] | None,
) -> Choice:
    """Return the choice of the earliest finish, where no account is predicted to meet the targets."""
    why = f"no candidate is predicted to meet its targets: earliest finish {finish_s:.2f} s"
    return Choice(index=index, why=why, rule="none_meets_targets", scores=scores, least_times=least_times)


def _least_used(
    index: int,
    share: float,
    first_s: float,
    token_s: float,
    scores: Mapping[str, Scores | Sequence[float]],
    least_times: tuple[float, float] | None,
) -> Choice:
    """Return the choice of the least share of the targets, with the times predicted there."""
    why = (
        f"uses {share:.0%} of its targets, the least "
        f"(first token {first_s:.2f} s, then {token_s * 1e3:.1f} ms per token)"
    )
    return Choice(index=index, why=why, rule="least_target_used", scores=scores, least_times=least_times)
