"""One caller at a time for each id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scheduler_svc.control.journal.batches import OwnedId
from scheduler_svc.domain.errors import LimitReached


class Turns:
    """Lets the second of two callers that mean the same id go on once the first is done."""

    def __init__(self, limit: int, what: str) -> None:
        """``limit``: ids that are worked on at the same time; ``what``: in words, for the error."""
        self._limit = limit
        self._what = what
        self._busy: dict[OwnedId, asyncio.Event] = {}  # set when its caller is done

    def __len__(self) -> int:
        return len(self._busy)

    @asynccontextmanager
    async def turn(self, key: OwnedId, *, bounded: bool = True) -> AsyncIterator[None]:
        """Wait for the turn of this caller; callers bound how long they keep it.

        ``bounded``: False for what is let in however many ids are worked on.  Raises LimitReached.
        """
        while (other := self._busy.get(key)) is not None:
            await other.wait()
        if bounded and len(self._busy) >= self._limit:
            raise LimitReached(self._what, self._limit)
        done = self._busy[key] = asyncio.Event()
        try:
            yield
        finally:
            del self._busy[key]
            done.set()
