"""Objectives that want the request done soon."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.ledger import Account
from scheduler_svc.domain.placement import scorers
from scheduler_svc.domain.placement.ask import Ask
from scheduler_svc.domain.placement.objective import Choice
from scheduler_svc.domain.placement.picker import pick
from scheduler_svc.domain.request import Priority


class ShortestStart:
    """Where prefill is predicted to start first; equal instances take turns."""

    headroom = 0

    def choose(self, ask: Ask, accounts: Sequence[Account], now: float) -> Choice:
        starts = scorers.start_s(accounts, now)
        index = pick(accounts, starts)
        why = f"shortest predicted start {starts[index]:.2f} s"
        return Choice(index=index, why=why, rule="shortest_start", scores={"start_s": starts})


class SoonestByClass:
    """The earliest predicted finish for CRITICAL and HIGH, the earliest start for the others.

    One slot of every instance is kept for CRITICAL.
    """

    headroom = 1

    def __init__(self) -> None:
        self._shortest_start = ShortestStart()

    def choose(self, ask: Ask, accounts: Sequence[Account], now: float) -> Choice:
        if ask.request.priority > Priority.HIGH:
            return self._shortest_start.choose(ask, accounts, now)
        starts = scorers.start_s(accounts, now)
        first_tokens = scorers.first_token_s(accounts, ask, starts)
        finishes = scorers.finish_s(ask, first_tokens, scorers.token_s(accounts, ask))
        index = pick(accounts, finishes)
        return Choice(
            index=index,
            why=f"earliest predicted finish {finishes[index]:.2f} s",
            rule="earliest_finish",
            scores={"finish_s": finishes, "start_s": starts},
        )
