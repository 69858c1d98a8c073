"""The figures of several accounts side by side, so that one operation works out a term for all of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from scheduler_svc.domain.capacity.account import Account

#: A figure of each account, or a score made of figures; a term of two of them is worked out for all accounts at once.
Column = NDArray[np.float64]
#: For each account whether something holds.
Mask = NDArray[np.bool_]
#: Positions of accounts, ascending.
Rows = NDArray[np.intp]
#: A number as numpy has it: it compares a column with this in half the time that it takes with a number.
_ZERO = np.array(0.0)

#: What nearly every choice compares, what says why an instance is full, and what a cost is made of: side by side, so
#: that one call copies it.
_COMPARED = slice(0, 7)
_FULL = slice(6, 9)
_COSTING = slice(9, 12)
NAMES = (
    "computed_token_s",
    "first_step_at",
    "first_step_floor",
    "output_kv_token_s",
    "output_token_s",
    "turn",
    "free_slots",
    "free_tokens",
    "full_prefill_s",
    "decode_token_s",
    "live",
    "price_per_s",
    "chunk_s",
    "decode_share",
    "first_token_margin",
    "lone_token_s",
    "overtaken_s",
    "prefill_token_s",
    "prompt_limit",
    "prompt_limit_leaving_reserve",
    "ready_at",
    "slot_limit",
    "slot_limit_leaving_reserve",
    "start_floor",
    "tightest_token_s",
    "token_margin",
    "urgent_limit",
)
_ROWS = {name: row for row, name in enumerate(NAMES)}
_FIGURES = Struct(f"{len(NAMES)}d")  # numpy takes three times as long to make an array of so many numbers


class Figures:
    """A column for each figure that accounts are compared by, named as in ``Account``; an entry for each account.

    Counts are floats here: exact up to 2^53.  Columns are read, never written to, outside of this class.
    """

    __slots__ = ("_entry", "_of_accounts", "_packed", "_table", *NAMES)

    chunk_s: Column
    computed_token_s: Column
    decode_share: Column
    decode_token_s: Column
    first_step_at: Column
    first_step_floor: Column
    first_token_margin: Column
    free_slots: Column
    free_tokens: Column
    full_prefill_s: Column
    live: Column
    lone_token_s: Column
    output_kv_token_s: Column
    output_token_s: Column
    overtaken_s: Column
    prefill_token_s: Column
    price_per_s: Column
    prompt_limit: Column
    prompt_limit_leaving_reserve: Column
    ready_at: Column
    slot_limit: Column
    slot_limit_leaving_reserve: Column
    start_floor: Column
    tightest_token_s: Column
    token_margin: Column
    turn: Column
    urgent_limit: Column

    def __init__(self, accounts: Iterable[Account]) -> None:
        rows = [account.compared() for account in accounts]
        self._table = np.array(rows, dtype=np.float64).reshape(len(rows), len(NAMES)).T.copy()
        self._of_accounts = tuple(self._table.T)  # the same table: the entries of each account together
        self._packed = bytearray(_FIGURES.size)  # the figures of the account that is updated
        self._entry: Column = np.frombuffer(self._packed)  # the same memory
        for name, column in zip(NAMES, self._table, strict=True):
            setattr(self, name, column)

    @property
    def with_free_slot(self) -> Mask:
        """Which accounts have a free slot."""
        return self.free_slots > _ZERO

    @property
    def costing(self) -> NDArray[np.float64]:
        """A copy of what a cost is made of: ``decode_token_s``, ``live`` and ``price_per_s``, a row each."""
        return self._table[_COSTING].copy()

    def why_full(self, rows: Rows | slice) -> NDArray[np.float64]:
        """Return free slots, free tokens and ``full_prefill_s`` of some accounts as they are now, a row each."""
        figures = self._table[_FULL]
        return figures[:, rows].copy() if isinstance(rows, slice) else figures.take(rows, axis=1)

    def update_full(self, row: int, account: Account) -> None:
        """Take what ``why_full`` returns as it is now, and ``computed_token_s``."""
        self.free_slots[row] = account.free_slots
        self.free_tokens[row] = account.free_tokens
        self.full_prefill_s[row] = account.full_prefill_s
        self.computed_token_s[row] = account.computed_token_s

    def update(self, row: int, account: Account) -> None:
        """Take the account's figures as they are now."""
        _FIGURES.pack_into(self._packed, 0, *account.compared())
        self._of_accounts[row][...] = self._entry


class FiguresOfSome(Figures):
    """The figures of some accounts of many.

    What every choice compares is copied together, any other column when it is read first; each keeps the state of then.
    """

    __slots__ = ("_many", "_rows")

    def __init__(self, many: Figures, rows: Rows) -> None:
        self._many = many
        self._rows = rows
        (
            self.computed_token_s,
            self.first_step_at,
            self.first_step_floor,
            self.output_kv_token_s,
            self.output_token_s,
            self.turn,
            self.free_slots,
        ) = many._table[_COMPARED].take(rows, axis=1)  # in the order of ``NAMES``

    @property
    def costing(self) -> NDArray[np.float64]:
        """A copy of what a cost is made of, as it is now."""
        return self._many._table[_COSTING].take(self._rows, axis=1)

    def __getattr__(self, name: str) -> Column:  # called for a column that was not read yet
        column: Column = getattr(self._many, name).take(self._rows)
        setattr(self, name, column)
        return column


class FollowingFigures(Figures):
    """The figures of some accounts of many, kept as they are now: whoever updates the many says what changed."""

    __slots__ = ("_many", "_rows")

    def __init__(self, many: Figures, rows: Rows) -> None:
        self._many = many
        self._table = many._table.take(rows, axis=1)
        self._rows: list[int] = rows.tolist()

    def follow(self, row: int) -> None:
        """Take the figures of an account that was updated, if it is one of these.  ``row``: its row in the many."""
        place = bisect_left(self._rows, row)
        if place < len(self._rows) and self._rows[place] == row:
            self._table[:, place] = self._many._of_accounts[row]

    def __getattr__(self, name: str) -> Column:  # called for a column that was not read yet
        if name not in _ROWS:
            raise AttributeError(name)
        column: Column = self._table[_ROWS[name]]
        setattr(self, name, column)
        return column


def lowest(column: Column) -> float:
    """Return the lowest entry of a column that is not empty."""
    found: float = column.item(column.argmin())
    return found


def highest(column: Column) -> float:
    """Return the highest entry of a column that is not empty."""
    found: float = column.item(column.argmax())
    return found


def count(mask: Mask) -> int:
    """Count the entries for which a mask holds."""
    return len(mask.nonzero()[0])
