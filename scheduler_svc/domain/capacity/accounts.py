"""The accounts that one request is compared on, with their figures as columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.account_watch import AccountWatch
from scheduler_svc.domain.capacity.figures import (
    Figures,
    FiguresOfSome,
    FollowingFigures,
    Mask,
    Rows,
    highest,
    lowest,
)

_ALL = slice(None)


class Accounts(Sequence[Account]):
    """Some instances' accounts, sorted by instance id, and their figures as columns.

    An account that changes says so, and its entries are read again before the next comparison: so a decision reads the
    one or two accounts that the last decision changed, not all.  What says whether and why it is full is read sooner
    than the rest, as a fleet without room needs nothing else.

    Mostly one request after another is offered the same accounts.  Where these are not all, because an instance takes
    no prompts for a while, their figures are kept up to date as well.
    """

    __slots__ = ("_accounts", "_figures", "_ids", "_numbers", "_offered", "_offered_mask", "_stale", "_watch")

    def __init__(self, accounts: Iterable[Account] = ()) -> None:
        self._accounts = tuple(accounts)
        self._figures: Figures | None = None
        self._watch = AccountWatch()
        self._stale: set[int] = set()  # rows of which only what says why they are full is up to date
        self._ids: tuple[str, ...] | None = None
        self._numbers: dict[str, int] | None = None
        self._offered: SomeAccounts | None = None  # that the last request was offered; None: all, or nobody asked
        self._offered_mask = b""  # which they are

    def __len__(self) -> int:
        return len(self._accounts)

    def __bool__(self) -> bool:
        return bool(self._accounts)

    @overload
    def __getitem__(self, index: int) -> Account: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Account]: ...
    def __getitem__(self, index: int | slice) -> Account | Sequence[Account]:
        return self._accounts[index]

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts)

    @property
    def ids(self) -> tuple[str, ...]:
        """The instance ids."""
        if self._ids is None:
            self._ids = tuple(a.instance_id for a in self)
        return self._ids

    @property
    def figures(self) -> Figures:
        """The figures as they are now."""
        figures, changed, stale = self._figures, self._watch.changed, self._stale
        if figures is None:
            return self._begin()
        if changed or stale:
            rows = changed | stale if stale else changed
            for row in rows:
                figures.update(row, self._accounts[row])
            if self._offered is not None:
                self._offered.follow(rows)
            changed.clear()
            stale.clear()
        return figures

    @property
    def open_rows(self) -> Collection[int]:
        """The rows, in no order, of those that take a prompt now, if only a CRITICAL one."""
        if self._figures is None:
            self._begin()
        return self._watch.open

    @property
    def roomy_rows(self) -> Collection[int]:
        """Those of ``open_rows`` that take a prompt of a request which leaves the slot reserved for CRITICAL free.

        The collection follows what changes.
        """
        if self._figures is None:
            self._begin()
        return self._watch.roomy

    @property
    def soon_rows(self) -> Collection[int]:
        """The rows, in no order, of those with a free slot that take no prompt until one there is computed."""
        if self._figures is None:
            self._begin()
        return self._watch.soon

    def few_open(self, most: int, *, leaving_reserve: bool) -> Sequence[tuple[int, Account]] | None:
        """Return rows and accounts that take a prompt, ascending; None if there are more than ``most`` or may be.

        ``leaving_reserve``: one of a request which leaves the slot reserved for CRITICAL free.
        """
        if self._figures is None:
            self._begin()
        rows = self._watch.roomy if leaving_reserve else self._watch.open
        return None if len(rows) > most else [(row, self._accounts[row]) for row in sorted(rows)]

    @property
    def least_free_tokens(self) -> float:
        """The KV tokens free where least are; there is an account."""
        return lowest(self._with_why_full().free_tokens)

    @property
    def computed_token_range_s(self) -> tuple[float, float]:
        """The least and the most seconds per prompt token that is computed; there is an account."""
        token_s = self._with_why_full().computed_token_s
        return lowest(token_s), highest(token_s)

    def why_full(self) -> NDArray[np.float64]:
        """Return free slots, free tokens and ``full_prefill_s`` as they are now: a row each, a column an account."""
        return self._with_why_full().why_full(_ALL)

    def _with_why_full(self) -> Figures:
        """Return the figures, of which those are up to date that ``Figures.update_full`` takes."""
        figures, changed = self._figures, self._watch.changed
        if figures is None:
            return self._begin()
        if changed:
            for row in changed:
                figures.update_full(row, self._accounts[row])
            self._stale |= changed
            changed.clear()
        return figures

    def _begin(self) -> Figures:
        """Read all figures, and have the accounts say when they change."""
        figures, self._watch = Figures(self._accounts), AccountWatch()
        self._figures = figures
        self._offered = None  # its figures are those of other columns
        self._stale.clear()
        for row, account in enumerate(self._accounts):
            account.watch(self._watch, row)
        return figures

    def close(self) -> None:
        """Have the accounts no longer say when they change: they are compared in another composition from now on."""
        if self._figures is not None:
            for account in self._accounts:
                account.unwatch(self._watch)
            self._figures = self._offered = None

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
            self._numbers = {instance_id: row for row, instance_id in enumerate(self.ids)}
        return self._numbers.get(instance_id)

    def where(self, mask: Mask) -> Accounts:
        """Return those for which the mask holds; these themselves if it holds for all."""
        rows = mask.nonzero()[0]
        return self if len(rows) == len(mask) else self.take(rows)

    def offered(self, mask: Mask) -> Accounts:
        """Return what ``where`` does; the same object as the last time if the mask is the same."""
        key = mask.tobytes()
        if key == self._offered_mask and self._offered is not None:
            self._offered.is_followed = True
            return self._offered
        found = self.where(mask)
        self._offered, self._offered_mask = (found, key) if isinstance(found, SomeAccounts) else (None, b"")
        return found

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
    """Some accounts of many.

    Their figures are those of the time when they are read first, which does for one decision.  Where further decisions
    are of the same accounts, ``is_followed`` is set, and the figures are those of now.
    """

    __slots__ = ("_followed", "_rows", "_whole", "is_followed")

    def __init__(self, whole: Accounts, rows: Rows) -> None:
        self._whole = whole
        self._rows = rows
        self.is_followed = False
        self._followed: FollowingFigures | None = None
        self._figures = None
        self._ids = None
        self._numbers = None

    def __len__(self) -> int:
        return len(self._rows)

    def __bool__(self) -> bool:
        return len(self._rows) > 0

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
        """The figures: as they are now if they are followed, else each as it was when it was read first."""
        if self.is_followed:
            many = self._whole.figures  # has what changed followed
            if self._followed is None:
                self._followed = FollowingFigures(many, self._rows)
            return self._followed
        if self._figures is None:
            self._figures = FiguresOfSome(self._whole.figures, self._rows)
        return self._figures

    def follow(self, rows: Iterable[int]) -> None:
        """Take the figures of the accounts in these rows of ``whole``, which changed."""
        if self._followed is not None:
            for row in rows:
                self._followed.follow(row)

    def offered(self, mask: Mask) -> Accounts:
        """Return what ``where`` does."""
        return self.where(mask)

    def few_open(self, most: int, *, leaving_reserve: bool) -> Sequence[tuple[int, Account]] | None:
        """Return None: nobody keeps count of these."""
        return None

    @property
    def open_rows(self) -> Collection[int]:
        """The rows, in no order, of those that take a prompt now, if only a CRITICAL one."""
        return self._here(self._whole.open_rows)

    @property
    def roomy_rows(self) -> Collection[int]:
        """Those of ``open_rows`` that take a prompt of a request which leaves the slot reserved for CRITICAL free."""
        return self._here(self._whole.roomy_rows)

    @property
    def soon_rows(self) -> Collection[int]:
        """The rows, in no order, of those with a free slot that take no prompt until one there is computed."""
        return self._here(self._whole.soon_rows)

    def _here(self, rows: Collection[int]) -> Collection[int]:
        """Return which rows here those of the whole are."""
        return [row for row, whole_row in enumerate(self._rows.tolist()) if whole_row in rows]

    def why_full(self) -> NDArray[np.float64]:
        """Return free slots, free tokens and ``full_prefill_s`` as they are now: a row each, a column an account."""
        return self._whole._with_why_full().why_full(self._rows)

    def _with_why_full(self) -> Figures:
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


def row_of(accounts: Sequence[Account], instance_id: str) -> int | None:
    """Return the row of an instance among accounts of whatever kind of sequence; None if it is not there."""
    if hasattr(accounts, "find"):
        row: int | None = accounts.find(instance_id)
        return row
    return next((row for row, account in enumerate(accounts) if account.instance_id == instance_id), None)


def some_of(accounts: Sequence[Account], mask: Mask) -> Sequence[Account]:
    """Return the accounts that the mask holds for, whatever kind of sequence they come in."""
    if hasattr(accounts, "where"):
        some: Sequence[Account] = accounts.where(mask)
        return some
    return [account for account, held in zip(accounts, mask.tolist(), strict=True) if held]


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
