"""The objective that has each request done soonest."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.delays import with_delays
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import pick
from scheduler_svc.domain.objectives.scorers import Scores


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
        prefills = scorers.prefill_s(accounts, demand)
        if demand.overtakes:
            return self._choose_for_critical(demand, accounts, prefills, now)
        finishes = scorers.whole_run_s(accounts, demand, prefills, now)
        if demand.cached_tokens:
            return self._choose_by_cache(demand, accounts, finishes, prefills)
        index = pick(accounts, finishes)
        why = f"earliest predicted finish {float(finishes[index]):.2f} s"
        return Choice(index=index, why=why, rule="earliest_finish", scores={"finish_s": finishes})

    def index_of_choice(self, demand: Demand, accounts: Sequence[Account], now: float) -> int:
        """Return the index that ``choose`` chooses."""
        prefills = scorers.prefill_s(accounts, demand)
        if demand.overtakes:
            ranked = scorers.overtaking_first_token_s(accounts, prefills, now)
        else:
            ranked = scorers.whole_run_s(accounts, demand, prefills, now)
        if demand.cached_tokens:
            ranked = with_delays(ranked, prefills)
        return pick(accounts, ranked, cached=demand.cached_tokens)

    def _choose_by_cache(
        self, demand: Demand, accounts: Sequence[Account], finishes: Scores, prefills: Scores
    ) -> Choice:
        """Choose the earliest finish, weighed with what the request's prefill delays."""
        weighed = with_delays(finishes, prefills)
        index = pick(accounts, weighed, cached=demand.cached_tokens)
        finish_s, weighed_s = float(finishes[index]), float(weighed[index])
        why = f"earliest predicted finish {finish_s:.2f} s, {weighed_s:.2f} s weighed with its prefill"
        scores = {"finish_and_prefill_s": weighed, "finish_s": finishes}
        return Choice(index=index, why=why, rule="earliest_finish", scores=scores)

    def _choose_for_critical(self, demand: Demand, accounts: Sequence[Account], prefills: Scores, now: float) -> Choice:
        """Choose the earliest first token: a whole run's seconds would hide the tenths that it differs by."""
        firsts = scorers.overtaking_first_token_s(accounts, prefills, now)
        ranked = with_delays(firsts, prefills) if demand.cached_tokens else firsts
        index = pick(accounts, ranked, cached=demand.cached_tokens)
        first_s = float(firsts[index])
        why = f"earliest predicted first token {first_s:.2f} s, before prompts of other classes that wait there"
        return Choice(index=index, why=why, rule="earliest_first_token", scores={"first_token_s": firsts})
