"""Which bit stands for which instance, where a set of instances is the bits of one integer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.figures import Column, Mask, Rows

#: Columns, and compositions of accounts, that are kept ready; they start over at this number.
_KEPT = 256


class HolderBits:
    """Gives each instance a bit, and turns sets of bits into columns beside the figures of accounts.

    It does not change: where an instance comes or goes another object takes its place, and what was found by this one
    can still be read.
    """

    def __init__(self, ids: Sequence[str] = ()) -> None:
        """``ids``: instance ids by number of the bit; empty where the bit is free."""
        self._ids = tuple(ids)
        self._numbers = {name: number for number, name in enumerate(ids) if name}
        self._places: dict[int, _Places] = {}  # by the identity of the accounts
        self._columns: dict[tuple[int, int, int], Column] = {}  # by set, tokens and the identity of the accounts

    def with_one(self, instance_id: str) -> HolderBits:
        """Return the same with a bit for an instance that has none."""
        ids = list(self._ids)
        if "" in ids:
            ids[ids.index("")] = instance_id
        else:
            ids.append(instance_id)
        return HolderBits(ids)

    def without(self, instance_id: str) -> HolderBits:
        """Return the same without a bit for an instance, which is free then."""
        return HolderBits([name if name != instance_id else "" for name in self._ids])

    def bit(self, instance_id: str) -> int:
        """Return an instance's bit; 0 if it has none."""
        number = self._numbers.get(instance_id)
        return 1 << number if number is not None else 0

    def bits(self, instances: Iterable[str]) -> int:
        """Return the bits of these instances together."""
        found, numbers = 0, self._numbers
        for instance_id in instances:
            number = numbers.get(instance_id)
            if number is not None:
                found |= 1 << number
        return found

    def names(self, held: int) -> Iterator[str]:
        """Return the instances of a set."""
        while held:
            number = held.bit_length() - 1
            yield self._ids[number]
            held ^= 1 << number

    def column(self, held: int, tokens: int, accounts: Accounts) -> Column:
        """Return ``tokens`` for each of the accounts whose instance is in the set, 0 for the others.

        The result is kept for the next call: copy it before it is changed.
        """
        key = held, tokens, id(accounts)
        found = self._columns.get(key)
        if found is None:
            numbers = self._places_of(accounts).numbers  # keeps the accounts, so that no others get their identity
            if len(self._columns) >= _KEPT:
                self._columns.clear()
            data = np.frombuffer(held.to_bytes(len(self._ids) // 8 + 1, "little"), dtype=np.uint8)
            mask: Mask = np.unpackbits(data, bitorder="little")[numbers].astype(np.bool_)
            found = self._columns[key] = np.where(mask, float(tokens), 0.0)
        return found

    def write(self, column: Column, held: int, tokens: int, accounts: Accounts) -> None:
        """Write ``tokens`` into a column for each of the accounts whose instance is in the set, one by one."""
        rows = self._places_of(accounts).rows
        while held:
            number = held.bit_length() - 1
            row = rows[number]
            if row is not None:
                column[row] = tokens
            held ^= 1 << number

    def _places_of(self, accounts: Accounts) -> _Places:
        known = self._places.get(id(accounts))
        if known is None:
            if len(self._places) >= _KEPT:
                self._places.clear()
                self._columns.clear()
            known = self._places[id(accounts)] = _Places(accounts, self._ids, self._numbers)
        return known


class _Places:
    """Which bit each of some accounts has, and the reverse."""

    __slots__ = ("accounts", "numbers", "rows")

    def __init__(self, accounts: Accounts, ids: Sequence[str], numbers: Mapping[str, int]) -> None:
        self.accounts = accounts
        #: Number of each account's bit; of one without a bit the number of a bit that no set has.
        self.numbers: Rows = np.array([numbers.get(name, len(ids)) for name in accounts.ids], dtype=np.intp)
        self.rows = [accounts.find(name) for name in ids]  # by number of the bit; None: none of the accounts
