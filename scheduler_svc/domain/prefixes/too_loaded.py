"""The instances whose caches do not count for a while, because too much was sent there."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.figures import Column, Mask, Rows
from scheduler_svc.domain.prefixes.held_tokens import HeldTokens


class TooLoaded:
    """The instances of a pool that were given too much more than the mean."""

    __slots__ = ("_bits", "_mask", "_rows", "accounts", "until")

    def __init__(self, accounts: Accounts, mask: Mask, *, bits: int, until: int) -> None:
        """``mask``: which of ``accounts`` they are; ``bits``: the same in the index."""
        self.accounts = accounts  # of the pool
        self.until = until  # number of the placement until which this holds
        self._mask = mask
        self._rows: Rows = mask.nonzero()[0]
        self._bits = bits

    def __contains__(self, instance_id: str) -> bool:
        row = self.accounts.find(instance_id)
        return row is not None and bool(self._mask[row])

    def among(self, offered: Accounts) -> Mask:
        """Return which of some accounts of the pool they are."""
        return self._mask if offered is self.accounts else self._mask[offered.rows]

    def hold_any(self, cached: Mapping[str, int]) -> bool:
        """Whether any of these instances holds any of the cached tokens, which ``CachedPrefixes`` found."""
        return isinstance(cached, HeldTokens) and bool(cached.holders & self._bits)

    def spare(self, cached: Mapping[str, int]) -> Mapping[str, int]:
        """Return the cached tokens without those of these instances; the same object if none of these holds any."""
        return cached.without(self._bits) if isinstance(cached, HeldTokens) else cached

    def spared_column(self, cached: Mapping[str, int], offered: Accounts) -> Column | None:
        """Return the same as a column beside the figures of some of the accounts; None if nobody else holds any."""
        if not isinstance(cached, HeldTokens) or not cached.holders & ~self._bits:
            return None
        column = cached.column(offered)
        if offered is self.accounts:
            column = column.copy()  # that of some accounts is a copy already
        column[self._rows if offered is self.accounts else self.among(offered)] = 0.0
        return column
