"""Objectives that have the request done soon."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.picker import pick
from scheduler_svc.domain.request import Priority


class ShortestStart:
    """Chooses the instance where prefill is predicted to start first; equal instances take turns."""

    reserved_slots = 0

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the instance with the shortest predicted start."""
        starts = scorers.start_s(accounts, now)
        index = pick(accounts, starts)
        why = f"shortest predicted start {starts[index]:.2f} s"
        return Choice(index=index, why=why, rule="shortest_start", scores={"start_s": starts})


class SoonestByClass:
    """Chooses the earliest predicted finish for CRITICAL and HIGH, the earliest start for the others.

    One slot of every instance is reserved for CRITICAL.
    """

    reserved_slots = 1

    def __init__(self) -> None:
        self._shortest_start = ShortestStart()

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose by predicted finish or start, depending on the request's class."""
        if demand.request.priority > Priority.HIGH:
            return self._shortest_start.choose(demand, accounts, now)
        starts = scorers.start_s(accounts, now)
        first_tokens = scorers.first_token_s(accounts, demand, starts)
        finishes = scorers.finish_s(demand, first_tokens, scorers.token_s(accounts, demand))
        index = pick(accounts, finishes)
        return Choice(
            index=index,
            why=f"earliest predicted finish {finishes[index]:.2f} s",
            rule="earliest_finish",
            scores={"finish_s": finishes, "start_s": starts},
        )
