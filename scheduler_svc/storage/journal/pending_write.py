"""Writes that wait for their transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")


class PendingWrite(Generic[T]):
    """What to write, and who waits for it."""

    __slots__ = ("_work", "error", "frees", "result", "size_bytes", "value")

    def __init__(
        self, work: Callable[[Connection], T], size_bytes: int, result: asyncio.Future[T], *, frees: bool = False
    ) -> None:
        """``frees``: it only deletes."""
        self._work = work
        self.frees = frees
        self.size_bytes = size_bytes
        self.result = result
        self.value: T | None = None
        self.error: Exception | None = None  # of its own, which undid this write alone

    def run(self, connection: Connection) -> None:
        """Do the work, in the writer's thread."""
        self.error = None  # of an earlier transaction, which was rolled back
        self.value = self._work(connection)

    @property
    def many(self) -> Callable[[Connection, Sequence[Any]], None] | None:
        """What does the work of several such writes at once; None: this one is done alone."""
        return None

    def settle(self, error: Exception | None) -> None:
        """Wake the caller, on the event loop; ``error``: of the whole transaction."""
        if self.result.done():
            return  # it gave up
        failure = error or self.error
        if failure is not None:
            self.result.set_exception(failure)
        else:
            self.result.set_result(self.value)  # type: ignore[arg-type]  # None is a T where the work returns None


class PendingItem(PendingWrite[None]):
    """One item of a kind of which many are written by the same statements as one."""

    __slots__ = ("_many", "item")

    def __init__(
        self,
        many: Callable[[Connection, Sequence[Any]], None],
        item: object,
        size_bytes: int,
        result: asyncio.Future[None],
    ) -> None:
        """``many`` writes items, in their order."""
        super().__init__(lambda connection: many(connection, [item]), size_bytes, result)
        self._many = many
        self.item = item

    @property
    def many(self) -> Callable[[Connection, Sequence[Any]], None]:
        """What writes several items of this kind at once."""
        return self._many


def run_together(writes: Sequence[PendingWrite[Any]], connection: Connection) -> None:
    """Do the works of all in their order; of neighbours that are items of one kind in one work."""
    for many, some in groupby(writes, key=lambda write: write.many):
        if many is None:
            for write in some:
                write.run(connection)
            continue
        items = list(_started(some))
        many(connection, items)


def _started(writes: Iterator[PendingWrite[Any]]) -> Iterator[Any]:
    for write in writes:
        assert isinstance(write, PendingItem)
        write.error = None  # of an earlier transaction, which was rolled back
        yield write.item
