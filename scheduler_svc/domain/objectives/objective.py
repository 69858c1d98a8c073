"""The port of an objective, which decides where a request goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.scorers import Scores


@dataclass(slots=True, kw_only=True)
class Choice:
    """The account that an objective chose, and why."""

    index: int  # into the accounts that were offered
    why: str  # in words, "earliest predicted finish 0.21 s"
    rule: str = "other"  # a short name for ``why``, used as a metric label
    #: By scorer, parallel to the accounts; lower is better.
    scores: Mapping[str, Scores | Sequence[float]] = field(default_factory=dict)
    waits: bool = False  # no account should take it now: it is worth waiting for one that runs others and is full
    remarks: tuple[str, ...] = ()  # what else the caller should know, in words
    least_times: tuple[float, float] | None = None  # where no account is predicted to be in time: least seconds, with
    # some margin, until the first token and until the end; the ordering may have the request step back
    rejected: Mapping[int, tuple[str, str]] = field(default_factory=dict)  # index -> filter, reason


class Objective(Protocol):
    """Chooses among instances that can serve a request and have capacity for it.

    It may also have a method ``index_of_choice`` with the parameters of ``choose``, which returns only the index that
    ``choose`` would return, sooner: where caches of too loaded instances hold a prompt, an objective is asked twice.
    A class that inherits it and has a ``choose`` of its own needs an ``index_of_choice`` of its own.
    """

    @property
    def reserved_slots(self) -> int:
        """Slots, 0 or 1, that only CRITICAL requests may take on each instance with more than one."""
        ...

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose one of the accounts, which are not empty and sorted by instance id.

        It must choose one, which is certain to be taken, or have the request wait (``Choice.waits``) for an instance
        where something ends or is prefilled soon: only then is it asked again.
        ``now``: seconds on the scheduler's clock.
        """
        ...
