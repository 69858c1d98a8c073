"""One write that waits for its transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

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

    def settle(self, error: Exception | None) -> None:
        """Wake the caller, on the event loop; ``error``: of the whole transaction."""
        if self.result.done():
            return  # it gave up
        failure = error or self.error
        if failure is not None:
            self.result.set_exception(failure)
        else:
            self.result.set_result(self.value)  # type: ignore[arg-type]  # None is a T where the work returns None
