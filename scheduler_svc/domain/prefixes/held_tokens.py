"""The prompt tokens that instances hold of one prompt, as the index found them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.cached_tokens import CachedTokens
from scheduler_svc.domain.capacity.figures import Column
from scheduler_svc.domain.prefixes.holder_bits import HolderBits

#: Sets of at most this many holders are taken apart at every lookup.
_FEW = 8


class HeldTokens(CachedTokens):
    """For each set of holders how many leading tokens they hold; the holders of more are among those of fewer.

    The index may change meanwhile: this stays what it was.
    """

    __slots__ = ("_answer", "_asked", "_bits", "_column", "_of", "_steps")

    def __init__(self, bits: HolderBits, steps: Sequence[tuple[int, int]]) -> None:
        """Take holders, as the bits of an integer, and their tokens; the fewest tokens first."""
        self._bits = bits
        self._steps = steps
        self._column: Column | None = None
        self._of: Accounts | None = None  # whose column that is
        self._asked, self._answer = "", 0  # the instance that was asked about last: a decision asks several times

    @property
    def holders(self) -> int:
        """Bits of the instances that hold anything."""
        return self._steps[0][0] if self._steps else 0

    def at_most(self, tokens: int) -> HeldTokens:
        """Return the same with no more than this for each instance."""
        return HeldTokens(self._bits, [(held, min(each, tokens)) for held, each in self._steps] if tokens > 0 else ())

    def without(self, holders: int) -> HeldTokens:
        """Return the same without some instances, given as bits; itself if none of them holds anything."""
        if not self._steps or not self._steps[0][0] & holders:
            return self
        others = ~holders
        return HeldTokens(self._bits, [(left, tokens) for held, tokens in self._steps if (left := held & others)])

    def column(self, accounts: Accounts) -> Column:
        """Return the tokens that each of the accounts' instances holds, 0 for those without any."""
        whole = accounts.whole
        if self._of is not whole or self._column is None:
            self._of = whole
            self._column = self._whole_column(whole)
        return self._column if accounts is whole else self._column[accounts.rows]

    def _whole_column(self, accounts: Accounts) -> Column:
        found: Column | None = None
        for held, tokens in self._steps:  # those that hold more are overwritten in the next round
            if held.bit_count() > _FEW:
                column = self._bits.column(held, tokens, accounts)
                found = column.copy() if found is None else np.maximum(found, column)
                continue
            if found is None:
                found = np.zeros(len(accounts))
            self._bits.write(found, held, tokens, accounts)
        return np.zeros(len(accounts)) if found is None else found

    def __getitem__(self, instance_id: str) -> int:
        tokens = self.get(instance_id, 0)
        if not tokens:
            raise KeyError(instance_id)
        return tokens

    def get(self, instance_id: str, default: int = 0, /) -> int:  # type: ignore[override]  # the default is a number
        """Return the tokens that an instance holds; ``default`` if it holds none."""
        if instance_id != self._asked:
            self._asked, self._answer = instance_id, self._find(self._bits.bit(instance_id))
        return self._answer or default

    def _find(self, bit: int) -> int:
        for held, tokens in reversed(self._steps):
            if held & bit:
                return tokens
        return 0

    def __contains__(self, instance_id: object) -> bool:
        return isinstance(instance_id, str) and self.get(instance_id, 0) > 0

    def __iter__(self) -> Iterator[str]:
        return iter(self._bits.names(self._steps[0][0])) if self._steps else iter(())

    def __bool__(self) -> bool:
        return bool(self._steps)

    def __len__(self) -> int:
        return self._steps[0][0].bit_count() if self._steps else 0
