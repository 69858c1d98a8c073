"""The cheapest instances that carry a load together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from scheduler_svc.domain.capacity.account import Account

_LEAST = 1e-9  # of an instance taken by the load
_TRIED = 16  # of the dearest instances, each left out first, where there are no more than ``_FEW`` instances
_FEW = 64


class Carriers:
    """Tells which instances carry a load, and which of them do so for the least price.

    A set of instances carries the load at a share s if the sum of what they can do at most is the load / s.
    """

    def __init__(self, accounts: Sequence[Account], taken: Iterable[float], prices: Mapping[str, float]) -> None:
        """``taken``: how many such instances the load takes, for each account.  ``prices``: by instance id."""
        self._carried = {a.instance_id: 1 / max(each, _LEAST) for a, each in zip(accounts, taken, strict=True)}
        self._prices = prices
        self.are_known = all(a.is_tried for a in accounts)  # whether it is known of each how much it carries
        self._ranked = sorted(accounts, key=lambda a: (self._price_of_work(a), prices[a.instance_id], a.instance_id))

    def among(self, ids: Iterable[str]) -> list[Account]:
        """Return the instances of these ids, those that cost least for what they do first."""
        wanted = set(ids)
        return [a for a in self._ranked if a.instance_id in wanted]

    def load_of(self, accounts: Iterable[Account]) -> float:
        """Return what the load is, as a share of what these do at most; 1 of none."""
        most = sum(self._carried[a.instance_id] for a in accounts)
        return 1 / most if most else 1.0

    def price(self, accounts: Iterable[Account]) -> float:
        """Return what these cost together."""
        return sum(self._prices[a.instance_id] for a in accounts)

    def with_enough(self, kept: Iterable[Account], share: float) -> list[Account]:
        """Return those kept and as many of the first others as it takes to carry the load at this share."""
        taken = {a.instance_id: a for a in kept}
        total = sum(self._carried[i] for i in taken)
        for account in self._ranked:
            if taken and total * share >= 1:
                break
            if account.instance_id not in taken:
                taken[account.instance_id] = account
                total += self._carried[account.instance_id]
        return list(taken.values())

    def spared(self, taken: Sequence[Account], share: float) -> Sequence[Account]:
        """Return the cheapest found of those that carry the load at this share; all if together they do not.

        Instances are left out one by one while the others carry the load: the dearest first, or those that cost most
        for what they do, or one of the dearest and then either.  That finds the cheapest of few, and nearly so of many.
        """
        dearest = sorted(taken, key=lambda a: self._prices[a.instance_id], reverse=True)
        dearest_for_work = sorted(taken, key=self._price_of_work, reverse=True)
        firsts = [[], *([a] for a in dearest[:_TRIED] if len(dearest) <= _FEW)]
        orders = [[*first, *rest] for rest in (dearest, dearest_for_work) for first in firsts]
        return min((self._left(order, share) for order in orders), key=self.price)

    def _left(self, order: Sequence[Account], share: float) -> list[Account]:
        """Return what is left after each, in this order, was left out if the others carry the load at this share."""
        left = {a.instance_id: a for a in order}
        total = sum(self._carried[i] for i in left)
        for account in order:
            rest = total - self._carried[account.instance_id]
            if len(left) > 1 and account.instance_id in left and rest * share >= 1:
                del left[account.instance_id]
                total = rest
        return list(left.values())

    def _price_of_work(self, account: Account) -> float:
        price = self._prices[account.instance_id] / self._carried[account.instance_id]
        return float(f"{price:.9g}")  # what is equal but for rounding is equal
