"""The instances that a load needs: the cheapest ones that can carry it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import as_accounts
from scheduler_svc.domain.capacity.figures import Mask
from scheduler_svc.domain.capacity.offered_load import OfferedLoad

#: Share of what instances can do at most that they are meant to carry, until misses show that it is too much.
CARRIED = 0.75
#: The least that this share falls to.
LEAST_CARRIED = 0.4
#: Factor of that share, or of what the instances carry if that is less, when a request needs an instance besides them.
LOWERED = 0.95
#: By how much the share rises back to ``CARRIED``, per second.
RAISED_PER_S = 2e-4
#: By how much the load may exceed that share before further instances are taken, so that small changes change nothing.
BAND = 0.1
#: The share in the first ``FIRST_S`` seconds of a load: nothing is known of the instances' speeds, so most are used.
CARRIED_AT_FIRST = 0.5
FIRST_S = 10.0
#: How many times dearer the instances in use have to be than others that would do, for others to be taken.
WORTH_A_CHANGE = 1.25
#: The same for some of them to be left, which takes no other into use.
WORTH_LEAVING = 1.02
#: Seconds for which an instance stays in use after it was last needed.
HOLD_S = 30.0
#: Share of requests that may miss their targets rather than take a further instance into use.
MISSED = 0.0075
#: Seconds until requests that finish tell of a change: those that began before it are done.
LESSON_S = 15.0
_MOST_EXCUSED = 5.0  # requests one after the other
_LEAST = 1e-9  # of an instance taken by the load
_MOST_COUNTED = 10_000  # instances whose late requests are remembered; those that are gone are among them
_TRIED = 16  # of the dearest instances, each left out first, where there are no more than ``_FEW`` instances
_FEW = 64
_REVIEW_S = 1.0  # between two looks at which instances are needed


class InstancesInUse:
    """Keeps the instances of one model that its load needs: the cheapest that carry it together.

    They carry the load at a share of what they can do at most.  The share falls when a request needs an instance
    besides them to meet its targets, and rises slowly again; so it adapts to how tight the targets are.  An instance
    stays in use for ``HOLD_S`` after it was last needed.
    """

    def __init__(self) -> None:
        self._excused = 0.0  # requests that may miss their targets now
        self._until: dict[str, float] = {}  # by instance id, seconds on the scheduler's clock
        self._mask: Mask | None = None  # which of ``_mask_of`` are in use; None: to be worked out again
        self._mask_of: Sequence[Account] = ()
        self._needed: Collection[str] = ()  # ids of those that carry the load
        self._carried = CARRIED  # share of what they can do that they are meant to carry
        self._short = False  # whether too many missed their targets, or one needed another instance, since the review
        self._late: dict[str, int] = {}  # by instance id: requests that finished late there until the last review
        self._unpunished = 0.0  # requests that may yet finish late before more instances are taken
        self._learned_at = float("-inf")
        self._review_at = float("-inf")
        self._reviewed: Sequence[Account] = ()

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._until

    def mask(self, accounts: Sequence[Account]) -> Mask:
        """Return for each of the accounts whether its instance is in use."""
        accounts = as_accounts(accounts)
        whole = accounts.whole
        if self._mask is None or self._mask_of is not whole:
            self._mask = np.array([a.instance_id in self._until for a in whole], dtype=np.bool_)
            self._mask_of = whole
        return self._mask if accounts is whole else self._mask[accounts.rows]

    def take(self, account: Account, now: float, *, risk: float) -> None:
        """Note that a request goes to an instance, which is in use from now on.

        ``risk``: how likely it misses its targets there, [0, 1].
        """
        self._excused = min(max(0.0, self._excused + MISSED - risk), _MOST_EXCUSED)
        self._unpunished = min(self._unpunished + MISSED, _MOST_EXCUSED)
        if account.instance_id not in self._until:
            self._until[account.instance_id] = now + HOLD_S
            self._mask = None
            self._short = True

    @property
    def excuses(self) -> bool:
        """Whether one more request may miss its targets, with no more than ``MISSED`` of them missing theirs."""
        return self._excused >= 1

    def soon_has_capacity(self, accounts: Sequence[Account]) -> bool:
        """Whether one of these instances is in use and takes another prompt as soon as one of its is computed."""
        return any(a.prefill_full and a.free_slots > 0 for a in accounts if a.instance_id in self._until)

    def review(self, accounts: Sequence[Account], load: OfferedLoad, now: float) -> None:
        """Work out which of these instances are needed, at most once a second, and drop those no longer held.

        ``accounts``: all that can serve the model.
        """
        if now < self._review_at and (
            accounts is self._reviewed or any(a.instance_id in self._until for a in accounts)
        ):
            return
        self._reviewed = accounts
        self._review_at = now + _REVIEW_S
        self._until = {i: until for i, until in self._until.items() if until > now}
        self._mask = None
        unit = load.of_instances(accounts, now)
        carried = {a.instance_id: 1 / max(taken, _LEAST) for a, taken in zip(accounts, unit, strict=True)}
        ranked = sorted(accounts, key=lambda a: (a.price_per_s / carried[a.instance_id], a.price_per_s, a.instance_id))
        self._count_late(accounts, load.age_s(now), now)
        first = load.age_s(now) < FIRST_S
        if first:
            needed: Sequence[Account] = _taken(ranked, carried, self._among(ranked), CARRIED_AT_FIRST)
        else:
            needed = self._carriers(ranked, carried, now)
        self._short = False
        self._needed = {a.instance_id for a in needed}
        for account in needed:
            self._until[account.instance_id] = now + (FIRST_S if first else HOLD_S)

    def _count_late(self, accounts: Sequence[Account], age_s: float, now: float) -> None:
        """Count the requests that finished late since the last review; too many: the instances carry too much."""
        late = {a.instance_id: a.late for a in accounts}
        self._unpunished -= sum(max(0, n - self._late.get(i, n)) for i, n in late.items())
        self._late = {**self._late, **late} if len(self._late) < _MOST_COUNTED else late
        if age_s < 2 * FIRST_S or now - self._learned_at < LESSON_S:
            self._unpunished = max(0.0, self._unpunished)  # they ran under what was in use before
        elif self._unpunished < 0:
            self._short, self._unpunished = True, 0.0

    def _among(self, accounts: Sequence[Account]) -> list[Account]:
        """Return those of the accounts that were needed at the last review."""
        return [a for a in accounts if a.instance_id in self._needed]

    def _carriers(self, ranked: Sequence[Account], carried: Mapping[str, float], now: float) -> Sequence[Account]:
        """Return those that carry the load from now on: with little reason to change, the ones that did so far."""
        needed = self._among(ranked)
        most = sum(carried[a.instance_id] for a in needed)
        share = self._carried = self._learn(1 / most if most else 1.0, now)
        if most * (share + BAND) < 1:
            needed = _taken(ranked, carried, needed, share)
        fewer = _spared(needed, carried, share)
        others = _spared(_taken(ranked, carried, (), share), carried, share)
        if self._short or _price(others) * WORTH_A_CHANGE < _price(fewer):
            return others
        return fewer if _price(fewer) * WORTH_LEAVING < _price(needed) else needed

    def _learn(self, load: float, now: float) -> float:
        """Return the share to carry.  ``load``: what the instances needed carry now, a share of what they can do."""
        if self._short and load < 1:  # above that no share helps
            self._learned_at = now
            return max(LEAST_CARRIED, min(self._carried, load) * LOWERED)
        return min(CARRIED, self._carried + RAISED_PER_S * _REVIEW_S)


def _taken(
    ranked: Sequence[Account], carried: Mapping[str, float], in_use: Sequence[Account], share: float
) -> list[Account]:
    """Return those in use and as many of the first others as it takes to carry the load at this share.

    ``carried``: how many times the load each instance carries when it is always full.
    """
    taken = {a.instance_id: a for a in in_use}
    total = sum(carried[i] for i in taken)
    for account in ranked:
        if taken and total * share >= 1:
            break
        if account.instance_id not in taken:
            taken[account.instance_id] = account
            total += carried[account.instance_id]
    return list(taken.values())


def _spared(taken: Sequence[Account], carried: Mapping[str, float], share: float) -> Sequence[Account]:
    """Return the cheapest found of those that carry the load at this share; all if together they do not.

    Instances are left out one by one while the others carry the load: the dearest first, or those that cost most for
    what they do, or one of the dearest and then either.  That finds the cheapest of few, and nearly so of many.
    """
    dearest = sorted(taken, key=lambda a: a.price_per_s, reverse=True)
    dearest_for_work = sorted(taken, key=lambda a: a.price_per_s / carried[a.instance_id], reverse=True)
    firsts = [[], *([a] for a in dearest[:_TRIED] if len(dearest) <= _FEW)]
    orders = [[*first, *rest] for rest in (dearest, dearest_for_work) for first in firsts]
    return min((_left(order, carried, share) for order in orders), key=_price)


def _left(order: Sequence[Account], carried: Mapping[str, float], share: float) -> list[Account]:
    """Return what is left after each, in this order, was left out if the others carry the load at this share."""
    left = {a.instance_id: a for a in order}
    total = sum(carried[i] for i in left)
    for account in order:
        rest = total - carried[account.instance_id]
        if len(left) > 1 and account.instance_id in left and rest * share >= 1:
            del left[account.instance_id]
            total = rest
    return list(left.values())


def _price(accounts: Sequence[Account]) -> float:
    return sum(a.price_per_s for a in accounts)
