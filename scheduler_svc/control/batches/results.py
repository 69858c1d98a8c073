"""Writes down the results of one batch's lines: one write at a time, with all that wait by then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import islice

from sage_common.clock import Clock
from scheduler_svc.control.journal.batches import BatchStore, LineResult, OwnedId, Saved
from scheduler_svc.domain.errors import JournalUnavailable

log = logging.getLogger(__name__)

AT_ONCE = 256
AT_ONCE_BYTES = 2**20
"""Bounds of one write: results, and bytes at which it takes no further one."""

RETRY_S = 1.0
"""Seconds until a write is tried again that failed."""


class Results:
    """The results that are not written down yet.  Bounded by the lines in flight: each waits for its own."""

    def __init__(
        self,
        key: OwnedId,
        store: BatchStore,
        clock: Clock,
        wall_clock: Callable[[], float],
        saved: Callable[[Saved], None],
    ) -> None:
        """Write nothing yet.  ``saved``: told of the batch after each write."""
        self._key = key
        self._store = store
        self._clock = clock
        self._wall_clock = wall_clock
        self._saved = saved
        self._waiting: dict[int, LineResult] = {}  # by the line's index
        self._writing = asyncio.Lock()
        self._failing = False

    async def write(self, result: LineResult) -> None:
        """Return once a result is on the disk; while the journal takes nothing it is tried again.

        A caller that is cancelled leaves its result to the next write.
        """
        self._waiting[result.index] = result
        async with self._writing:
            while result.index in self._waiting:
                await self._write()

    async def write_all(self, results: Sequence[LineResult]) -> None:
        """Return once these results, and those that wait, are on the disk."""
        self._waiting.update((each.index, each) for each in results)
        await self.flush()

    async def flush(self) -> None:
        """Write down what waits."""
        async with self._writing:
            while self._waiting:
                await self._write()

    async def _write(self) -> None:
        some = self._next()
        try:
            saved = await self._store.save(self._key, some, self._wall_clock())
        except JournalUnavailable as error:
            if not self._failing:
                log.error("results of batch %s cannot be written down: %s; it is tried again", self._key, error)
            self._failing = True
            await self._clock.sleep(RETRY_S)
            return
        self._failing = False
        for each in some:
            self._waiting.pop(each.index, None)
        if saved is not None:
            self._saved(saved)

    def _next(self) -> Sequence[LineResult]:
        """Return what one write takes: the first ones."""
        some: list[LineResult] = []
        size = 0
        for each in islice(self._waiting.values(), AT_ONCE):
            size += len(each.content)
            if some and size > AT_ONCE_BYTES:
                break
            some.append(each)
        return some
