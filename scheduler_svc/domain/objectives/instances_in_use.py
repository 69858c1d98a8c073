"""The instances that a load needs: the cheapest ones that can carry it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import as_accounts
from scheduler_svc.domain.capacity.figures import Mask
from scheduler_svc.domain.capacity.offered_load import OfferedLoad

#: Share of what an instance can do at most that it is meant to carry: the rest is for bursts.
CARRIED = 0.7
#: The same while an instance may be spared: less, so that small changes of the load change nothing.
CARRIED_WITHOUT = 0.6
#: How many times dearer the instances in use have to be than the cheapest that would do, for them to be changed.
WORTH_A_CHANGE = 1.1
#: Seconds for which an instance stays in use after it was last needed.
HOLD_S = 30.0
#: Share of requests that may miss their targets rather than take a further instance into use.
MISSED = 0.005
_MOST_EXCUSED = 5.0  # requests one after the other
_LEAST = 1e-9  # of an instance taken by the load
_REVIEW_S = 1.0  # between two looks at which instances are needed


class InstancesInUse:
    """Keeps the instances of one model that its load needs, the cheapest for what they do first.

    An instance is needed if those that do the same for less cannot carry the load at ``CARRIED`` of what they can do
    at most, or because a request asked for it.  It stays in use for ``HOLD_S`` after that.
    """

    def __init__(self) -> None:
        self._excused = 0.0  # requests that may miss their targets now
        self._until: dict[str, float] = {}  # by instance id, seconds on the scheduler's clock
        self._mask: Mask | None = None  # which of ``_mask_of`` are in use; None: to be worked out again
        self._mask_of: Sequence[Account] = ()
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
        return self._mask[accounts.rows]

    def take(self, account: Account, now: float, *, in_time: bool) -> None:
        """Note that a request goes to an instance, which is in use from now on.

        ``in_time``: whether the request is predicted to meet its targets there.
        """
        self._excused = min(self._excused + MISSED, _MOST_EXCUSED)
        if not in_time:
            self._excused = max(0.0, self._excused - 1)
        if account.instance_id not in self._until:
            self._need(account, now)

    @property
    def excuses(self) -> bool:
        """Whether one more request may miss its targets, with no more than ``MISSED`` of them missing theirs."""
        return self._excused >= 1

    def soon_has_capacity(self, accounts: Sequence[Account]) -> bool:
        """Whether one of these instances is in use and takes another prompt as soon as one of its is computed."""
        return any(a.prefill_full and a.free_slots > 0 for a in accounts if a.instance_id in self._until)

    def _need(self, account: Account, now: float) -> None:
        self._until[account.instance_id] = now + HOLD_S
        self._mask = None

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
        in_use = [a for a in ranked if a.instance_id in self._until]
        kept = _cheapest(ranked, carried, at=CARRIED, begin=in_use)
        best = _cheapest(ranked, carried, at=CARRIED_WITHOUT)
        if _price(best) * WORTH_A_CHANGE < _price(kept):
            kept = best
        for account in kept:
            self._need(account, now)


def _cheapest(
    ranked: Sequence[Account], carried: Mapping[str, float], *, at: float, begin: Sequence[Account] = ()
) -> list[Account]:
    """Return ``begin`` and the first instances that carry the load at the share ``at``, less what can be spared.

    An instance is spared, the dearest first, if the others carry the load at ``CARRIED_WITHOUT``.  ``carried``: how
    many times the load each instance carries when it is always full.
    """
    kept = {a.instance_id: a for a in begin}
    total = sum(carried[i] for i in kept)
    for account in ranked:
        if kept and total * at >= 1:
            break
        if account.instance_id not in kept:
            kept[account.instance_id] = account
            total += carried[account.instance_id]
    for account in sorted(kept.values(), key=lambda a: a.price_per_s, reverse=True):
        rest = total - carried[account.instance_id]
        if len(kept) > 1 and rest * CARRIED_WITHOUT >= 1:
            del kept[account.instance_id]
            total = rest
    return list(kept.values())


def _price(accounts: Sequence[Account]) -> float:
    return sum(a.price_per_s for a in accounts)
