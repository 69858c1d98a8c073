"""Which bit stands for which instance, where a set of instances is the bits of one integer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.figures import Mask, Rows

#: Sets, and compositions of accounts, that are kept ready; they start over at this number.
_KEPT = 256


class HolderBits:
    """Gives each instance a bit, and turns sets of bits into columns beside the figures of accounts."""

    def __init__(self) -> None:
        self._ids: list[str] = []  # by number of the bit; empty where the bit is free
        self._number: dict[str, int] = {}  # by instance id
        self._masks: dict[int, Mask] = {}  # by set
        self._numbers: dict[int, tuple[Accounts, Rows]] = {}  # by the identity of the accounts

    def give(self, instance_id: str) -> int:
        """Give an instance a bit, and return it."""
        number = self._ids.index("") if "" in self._ids else len(self._ids)
        if number == len(self._ids):
            self._ids.append("")
        self._ids[number] = instance_id
        self._number[instance_id] = number
        self._start_over()
        return 1 << number

    def take_back(self, instance_id: str) -> None:
        """Free the bit of an instance that has one."""
        self._ids[self._number.pop(instance_id)] = ""
        self._start_over()

    def bit(self, instance_id: str) -> int:
        """Return an instance's bit; 0 if it has none."""
        number = self._number.get(instance_id)
        return 1 << number if number is not None else 0

    def names(self, held: int) -> Iterator[str]:
        """Return the instances of a set."""
        while held:
            number = held.bit_length() - 1
            yield self._ids[number]
            held ^= 1 << number

    def column(self, held: int, accounts: Accounts) -> Mask:
        """Return for each of the accounts whether its instance is in the set."""
        return self._mask(held)[self._numbers_of(accounts)]

    def _mask(self, held: int) -> Mask:
        """Return for each bit whether it is in the set, and at the end one more for instances without a bit."""
        mask = self._masks.get(held)
        if mask is None:
            if len(self._masks) >= _KEPT:
                self._masks.clear()
            data = held.to_bytes(len(self._ids) // 8 + 1, "little")
            mask = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")[: len(self._ids) + 1]
            mask = self._masks[held] = mask.astype(np.bool_)
        return mask

    def _numbers_of(self, accounts: Accounts) -> Rows:
        """Return the number of each account's bit, the last one where it has none."""
        known = self._numbers.get(id(accounts))
        if known is None:
            if len(self._numbers) >= _KEPT:
                self._numbers.clear()
            numbers = [self._number.get(a.instance_id, len(self._ids)) for a in accounts]
            known = self._numbers[id(accounts)] = accounts, np.array(numbers, dtype=np.intp)
        return known[1]

    def _start_over(self) -> None:
        self._masks.clear()
        self._numbers.clear()
