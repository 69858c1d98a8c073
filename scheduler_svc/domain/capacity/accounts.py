"""The accounts that one request is compared on, with their figures as columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.figures import Figures, FiguresOfSome, Mask, Rows, lowest

_ALL = slice(None)


class Accounts(Sequence[Account]):
    """Some instances' accounts, sorted by instance id, and their figures as columns.

    An account that changes says so, and its entries are read again before the next comparison: so a decision reads the
    one or two accounts that the last decision changed, not all.  What says whether and why it is full is read sooner
    than the rest, as a fleet without room needs nothing else.
    """

    __slots__ = ("_accounts", "_changed", "_figures", "_numbers", "_open", "_roomy", "_stale")

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self._accounts = tuple(accounts)
        self._figures: Figures | None = None
        self._changed: set[int] = set()  # rows whose account has changed since it was looked at
        self._stale: set[int] = set()  # rows that were looked at and whose other figures are out of date
        self._open: set[int] = set()  # rows whose account took a prompt when it was looked at
        self._roomy: set[int] = set()  # of these, rows that took one of a request which leaves the reserved slot free
        self._numbers: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self._accounts)

    @overload
    def __getitem__(self, index: int) -> Account: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Account]: ...
    def __getitem__(self, index: int | slice) -> Account | Sequence[Account]:
        return self._accounts[index]

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts)

    @property
    def figures(self) -> Figures:
        """The figures as they are now."""
        figures = self._figures
        if figures is None:
            return self._watch()
        if self._changed or self._stale:
            self._note_open()
            for row in self._changed | self._stale if self._stale else self._changed:
                figures.update(row, self._accounts[row])
            self._changed.clear()
            self._stale.clear()
        return figures

    def open_rows(self, *, leaving_reserve: bool = False) -> Collection[int]:
        """Return the rows, in no order, of those that take a prompt now, if only a CRITICAL one.

        ``leaving_reserve``: those that take one of a request which leaves the slot reserved for CRITICAL free.
        """
        self._look()
        return self._roomy if leaving_reserve else self._open

    def few_open(self, most: int, *, leaving_reserve: bool) -> list[tuple[int, Account]] | None:
        """Return the rows and accounts of ``open_rows``, ascending; None if there are more than ``most``."""
        rows = self.open_rows(leaving_reserve=leaving_reserve)
        return [(row, self._accounts[row]) for row in sorted(rows)] if len(rows) <= most else None

    @property
    def least_free_tokens(self) -> float:
        """The KV tokens free where least are; there is an account."""
        return lowest(self._look().free_tokens)

    def why_full(self) -> NDArray[np.float64]:
        """Return free slots, free tokens and ``full_prefill_s`` as they are now: a row each, a column an account."""
        return self._look().why_full(_ALL)

    def _look(self) -> Figures:
        """Note of the accounts that changed whether they take a prompt and, in the figures, why not."""
        figures = self._figures
        if figures is None:
            return self._watch()
        if self._changed:
            self._note_open()
            for row in self._changed:
                figures.update_full(row, self._accounts[row])
            self._stale |= self._changed
            self._changed.clear()
        return figures

    def _note_open(self) -> None:
        """Note which of the accounts that changed take a prompt."""
        for row in self._changed:
            account = self._accounts[row]
            if account.urgent_limit <= 0:
                self._open.discard(row)
                self._roomy.discard(row)
                continue
            self._open.add(row)
            if account.prompt_limit_leaving_reserve > 0:
                self._roomy.add(row)
            else:
                self._roomy.discard(row)

    def _watch(self) -> Figures:
        """Read all figures, and have the accounts say when they change."""
        figures = self._figures = Figures(self._accounts)
        self._changed.clear()
        self._stale.clear()
        self._open = {row for row, account in enumerate(self._accounts) if account.urgent_limit > 0}
        self._roomy = {row for row in self._open if self._accounts[row].prompt_limit_leaving_reserve > 0}
        for row, account in enumerate(self._accounts):
            account.watch(self._changed, row)
        return figures

    def close(self) -> None:
        """Have the accounts no longer say when they change: they are compared in another composition from now on."""
        if self._figures is not None:
            for account in self._accounts:
                account.unwatch(self._changed)
            self._figures = None

    @property
    def whole(self) -> Accounts:
        """The accounts that these are some of, or these themselves."""
        return self

    @property
    def rows(self) -> Rows | slice:
        """Which accounts of ``whole`` these are."""
        return _ALL

    def find(self, instance_id: str) -> int | None:
        """Return the row of an instance; None if it is not among these."""
        if self._numbers is None:
            self._numbers = {a.instance_id: row for row, a in enumerate(self._accounts)}
        return self._numbers.get(instance_id)

    def where(self, mask: Mask) -> Accounts:
        """Return those for which the mask holds; these themselves if it holds for all."""
        rows = mask.nonzero()[0]
        return self if len(rows) == len(mask) else self.take(rows)

    def only(self, instance_id: str) -> Accounts:
        """Return just that instance's; none if it is not among these."""
        row = self.find(instance_id)
        return NO_ACCOUNTS if row is None else self.at([row])

    def less(self, others: Accounts) -> Accounts:
        """Return those that are not among the others, which are some of the same."""
        if others is self:
            return NO_ACCOUNTS
        rows = self.rows_without(others)
        return self if len(rows) == len(self) else self.take(rows)

    def rows_without(self, others: Accounts) -> Rows:
        """Return the rows of those that are not among the others, which are some of the same."""
        left = np.ones(len(self.whole), dtype=np.bool_)
        left[others.rows] = False
        return left[self.rows].nonzero()[0]

    def at(self, rows: Sequence[int]) -> Accounts:
        """Return those in these rows, which are ascending; these themselves if that is all."""
        return self if len(rows) == len(self) else self.take(np.array(rows, dtype=np.intp))

    def take(self, rows: Rows) -> Accounts:
        """Return those in these rows."""
        return SomeAccounts(self, rows)


class SomeAccounts(Accounts):
    """Some accounts of many, for one decision: their figures are those of the time when they are read first."""

    __slots__ = ("_rows", "_whole")

    def __init__(self, whole: Accounts, rows: Rows) -> None:
        self._whole = whole
        self._rows = rows
        self._figures = None
        self._numbers = None

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Account: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Account]: ...
    def __getitem__(self, index: int | slice) -> Account | Sequence[Account]:
        if isinstance(index, slice):
            return tuple(self._whole[row] for row in self._rows[index])
        return self._whole._accounts[int(self._rows[index])]

    def __iter__(self) -> Iterator[Account]:
        accounts = self._whole._accounts
        return iter([accounts[row] for row in self._rows.tolist()])

    @property
    def figures(self) -> Figures:
        """The figures, each as it was when it was read first."""
        if self._figures is None:
            self._figures = FiguresOfSome(self._whole.figures, self._rows)
        return self._figures

    def open_rows(self, *, leaving_reserve: bool = False) -> Collection[int]:
        """Return the rows of those that take a prompt now, as ``Accounts.open_rows`` does."""
        opened = self._whole.open_rows(leaving_reserve=leaving_reserve)
        return [row for row, whole_row in enumerate(self._rows.tolist()) if whole_row in opened]

    def why_full(self) -> NDArray[np.float64]:
        """Return free slots, free tokens and ``full_prefill_s`` as they are now: a row each, a column an account."""
        return self._whole._look().why_full(self._rows)

    def _look(self) -> Figures:
        return self.figures

    @property
    def whole(self) -> Accounts:
        """The accounts that these are some of."""
        return self._whole

    @property
    def rows(self) -> Rows:
        """Which accounts of ``whole`` these are."""
        return self._rows

    def find(self, instance_id: str) -> int | None:
        """Return the row of an instance; None if it is not among these."""
        row = self._whole.find(instance_id)
        if row is None:
            return None
        here = int(self._rows.searchsorted(row))
        return here if here < len(self._rows) and self._rows[here] == row else None

    def take(self, rows: Rows) -> Accounts:
        """Return those in these rows."""
        return SomeAccounts(self._whole, self._rows[rows])


#: None of the accounts there are.
NO_ACCOUNTS = Accounts()


def as_accounts(accounts: Sequence[Account]) -> Accounts:
    """Return the accounts with their figures as columns, whatever kind of sequence they come in."""
    if hasattr(accounts, "whole"):  # ``isinstance`` with an abstract class takes several times as long
        return accounts  # type: ignore[return-value]  # only ``Accounts`` have a whole
    return Accounts(accounts)


def figures_of(accounts: Sequence[Account] | Figures) -> Figures:
    """Return the figures of the accounts as columns; of a plain sequence they are read now.

    Whoever asks for several columns may pass on the figures: they are returned as they are.
    """
    if isinstance(accounts, Figures):
        return accounts
    try:
        return accounts.figures  # type: ignore[attr-defined, no-any-return]  # asked for several times a decision
    except AttributeError:
        return Figures(accounts)
