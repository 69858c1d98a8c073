"""The port of an objective, which decides where a request goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Column, Mask
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
    waits_alike: bool = False  # whoever asks for as much waits as well: a pass need not ask of each
    remarks: tuple[str, ...] = ()  # what else the caller should know, in words
    least_times: tuple[float, float] | None = None  # where no account is predicted to be in time: least seconds, with
    # some margin, until the first token and until the end; the ordering may have the request step back
    rejected: Mapping[int, tuple[str, str]] = field(default_factory=dict)  # index -> filter, reason


class Objective(Protocol):
    """Chooses among instances that can serve a request and have capacity for it.

    Where caches of too loaded instances hold a part of the prompt, it is asked twice: whatever caches hold and, unless
    it chose a too loaded instance then, by what those of the others hold.  An objective that works out both together
    is ``Sparing``.
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


@lru_cache(maxsize=1_024)
def has_way(kind: type[Objective], way: str) -> bool:
    """Whether a class has this shorter way to what its ``choose`` does.

    One that is inherited does not count where ``choose`` is the class's own.
    """
    for each in kind.__mro__:
        if way in vars(each):
            return True
        if "choose" in vars(each):
            return False
    return False


class ChoosesOnly(Objective, Protocol):
    """An objective that has a shorter way where one account is offered, as in a saturated fleet."""

    def choose_only(self, demand: Demand, account: Account, now: float) -> Choice:
        """Return what ``choose`` does of this account alone, whose cache holds nothing of the prompt."""
        ...


class Sparing(Objective, Protocol):
    """An objective that keeps prompts from too loaded instances in one go."""

    def choose_sparing(
        self,
        demand: Demand,
        accounts: Sequence[Account],
        now: float,
        *,
        too_loaded: Mask,
        held: Column | None,
    ) -> Choice:
        """Return what ``choose`` chooses whatever caches hold, if that is one of the too loaded accounts.

        Else what it chooses by what the caches of the others hold.  ``too_loaded``: which of the accounts they are.
        ``held``: prompt tokens for each account, 0 for the too loaded ones; None: nobody else holds any.
        """
        ...
