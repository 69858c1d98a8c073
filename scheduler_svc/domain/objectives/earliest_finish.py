"""The objective that has each request done soonest."""

from __future__ import annotations

from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Column, Figures, Mask
from scheduler_svc.domain.objectives import one_candidate, scorers
from scheduler_svc.domain.objectives.delays import with_delays
from scheduler_svc.domain.objectives.faster_full import unless_faster_is_full
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import pick_of
from scheduler_svc.domain.objectives.scorers import Scores


@mypyc_attr(allow_interpreted_subclasses=True)  # policies of others may extend it
class EarliestFinish:
    """Chooses the instance where the request is predicted to finish first; equal instances take turns.

    The finish counts the prompts that wait there, the engine's speed and how many share it: a fast engine gets more
    requests than a slow one, until both are predicted to take equally long.  Where some instance holds a part of the
    prompt in its prefix cache, what is left to compute counts more than once, because it delays others as well.
    A CRITICAL request, where engines compute its prompt before those of other classes, goes where its first token
    comes first.
    """

    def __init__(self, *, reserved_slots: int = 0) -> None:
        """``reserved_slots``: slots, 0 or 1, of each instance that only CRITICAL requests may take."""
        self.reserved_slots = reserved_slots

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the instance with the earliest predicted finish."""
        runs = _Runs(demand, figures_of(accounts), now)
        choice = runs.choose(demand.cached_in(accounts) if demand.cached_tokens else None)
        return unless_faster_is_full(choice, demand, accounts, now)

    def choose_only(self, demand: Demand, account: Account, now: float) -> Choice:
        """Choose the only account, whose cache holds nothing of the prompt."""
        prefill_s = one_candidate.prefill_s(account, demand)
        if demand.overtakes:
            time_s = one_candidate.overtaking_first_step_s(account, now) + prefill_s
        else:
            later_tokens = float(demand.output_tokens - 1)
            later_context = later_tokens * (demand.prompt_tokens + demand.output_tokens / 2)
            output_s, context_s = account.output_token_s * later_tokens, account.output_kv_token_s * later_context
            time_s = one_candidate.first_step_s(account, now) + prefill_s + output_s + context_s
        return unless_faster_is_full(_choice(demand, 0, time_s, (time_s,)), demand, (account,), now)

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
        runs = _Runs(demand, figures_of(accounts), now)
        times, _ = runs.times(None)
        return runs.choose(None if too_loaded[pick_of(runs.each, times, None)] else held)


class _Runs:
    """The predicted runs of one request; what does not depend on caches is worked out once."""

    __slots__ = ("_context_s", "_demand", "_first_step_s", "_output_s", "each")

    def __init__(self, demand: Demand, each: Figures, now: float) -> None:
        self._demand = demand
        self.each = each
        if demand.overtakes:
            self._first_step_s = scorers.overtaking_first_step_s(each, now)
            return
        self._first_step_s = scorers.first_step_s(each, now)
        later_tokens = float(demand.output_tokens - 1)
        later_context = later_tokens * (demand.prompt_tokens + demand.output_tokens / 2)
        self._output_s = each.output_token_s * later_tokens
        self._context_s = each.output_kv_token_s * later_context

    def times(self, held: Column | None) -> tuple[Scores, Scores]:
        """Return seconds until the finish or, of a CRITICAL request, the first token; and those of the prefill.

        ``held``: prompt tokens that the caches hold; None: none.
        """
        prefills = scorers.prefill_beside_s(self.each, self._demand, held)
        times = self._first_step_s + prefills
        if not self._demand.overtakes:  # a whole run's seconds would hide the tenths that first tokens differ by
            times = times + self._output_s + self._context_s
        return times, prefills

    def choose(self, held: Column | None) -> Choice:
        """Choose by what caches hold of the prompt."""
        times, prefills = self.times(held)
        ranked = times if held is None else with_delays(times, prefills)
        index = pick_of(self.each, ranked, None, held=held)
        choice = _choice(self._demand, index, float(times[index]), times)
        if ranked is not times and not self._demand.overtakes:
            choice.why = f"{choice.why}, {float(ranked[index]):.2f} s weighed with its prefill"
            choice.scores = {"finish_and_prefill_s": ranked, "finish_s": times}
        return choice


def _choice(demand: Demand, index: int, time_s: float, times: Scores | Sequence[float]) -> Choice:
    """Return the choice of an account by its predicted finish or, of a CRITICAL request, first token."""
    if demand.overtakes:
        why = f"earliest predicted first token {time_s:.2f} s, before prompts of other classes that wait there"
        return Choice(index=index, why=why, rule="earliest_first_token", scores={"first_token_s": times})
    why = f"earliest predicted finish {time_s:.2f} s"
    return Choice(index=index, why=why, rule="earliest_finish", scores={"finish_s": times})
