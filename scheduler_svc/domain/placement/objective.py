"""What a placement objective is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scheduler_svc.domain.ledger import Account
from scheduler_svc.domain.placement.ask import Ask
from scheduler_svc.domain.placement.scorers import Scores


@dataclass(slots=True, kw_only=True)
class Choice:
    """One of the accounts that were offered."""

    index: int  # into them
    why: str  # in words, "shortest predicted start 0.00 s"
    rule: str = "other"  # the same as a short name out of a few, to count by
    scores: Mapping[str, Scores] = field(default_factory=dict)  # by scorer, parallel to the accounts; lower is better
    loud: tuple[str, ...] = ()  # what the caller should know beyond that, in words
    rejected: Mapping[int, tuple[str, str]] = field(default_factory=dict)  # index -> filter, reason


class Objective(Protocol):
    """Picks among instances that can serve a request and have room for it."""

    #: slots of each instance that only CRITICAL requests may take, where it has more than one: 0 or 1
    @property
    def headroom(self) -> int: ...

    def choose(self, ask: Ask, accounts: Sequence[Account], now: float) -> Choice:
        """``accounts`` is not empty and sorted by id.  Must choose one: whether a request waits is not decided here."""
        ...
