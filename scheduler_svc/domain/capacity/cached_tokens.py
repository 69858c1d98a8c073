"""The prompt tokens that instances' prefix caches are believed to hold of one request."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.figures import Column


class CachedTokens(Mapping[str, int]):
    """Prompt tokens by instance id; only instances that hold some.  Also as a column beside the figures of accounts."""

    __slots__ = ()

    @abstractmethod
    def column(self, accounts: Accounts) -> Column:
        """Return the tokens that each of the accounts' instances holds, 0 for those without any."""


#: Nothing of a prompt is in any cache.
NOTHING_CACHED: Mapping[str, int] = {}


def cached_column(cached: Mapping[str, int], accounts: Sequence[Account]) -> Column:
    """Return the tokens that each of the accounts' instances holds, by whatever mapping from instance id says it."""
    # ``isinstance`` with an abstract class takes longer than what it is asked for here.
    column_of = getattr(cached, "column", None)
    if column_of is not None and hasattr(accounts, "whole"):
        column: Column = column_of(accounts)
        return column
    return np.array([cached.get(a.instance_id, 0) for a in accounts], dtype=np.float64)
