"""Writes down what is new of detached requests: one write at a time, with all that is due by then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sage_common.clock import Clock
from scheduler_svc.control.detached.journaled_output import JournaledOutput
from scheduler_svc.control.journal.detached import Checkpoint, DetachedEnd, DetachedStore

log = logging.getLogger(__name__)

BATCH = 256
"""Most requests of which one write has something."""

BATCH_BYTES = 4 * 2**20
"""Size at which a write takes no further request."""

RETRY_S = 1.0
"""Seconds until a write is tried again that failed."""


class Checkpoints:
    """The requests of which something is due; each waits once.  Bounded by the detached requests that are live."""

    def __init__(
        self,
        store: DetachedStore,
        clock: Clock,
        *,
        epoch: int,
        wall_s: Callable[[], float],
        end: Callable[[JournaledOutput], DetachedEnd],
        written: Callable[[JournaledOutput, Checkpoint], None],
    ) -> None:
        """``wall_s``: seconds since 1970 at the control clock's zero.  ``written``: told of each that is on disk."""
        self._store = store
        self._clock = clock
        self._epoch = epoch
        self._wall_s = wall_s
        self._end = end
        self._written = written
        self._due: dict[JournaledOutput, None] = {}  # in the order in which they became due
        self._awake = asyncio.Event()
        self._failing = False
        self._frozen = False

    def freeze(self) -> None:
        """Write nothing more."""
        self._frozen = True
        self._due.clear()

    def due(self, output: JournaledOutput) -> None:
        """Have what is new of a request written down."""
        if not self._frozen:
            self._due[output] = None
            self._awake.set()

    def drop(self, output: JournaledOutput) -> None:
        """Write nothing more of a request."""
        self._due.pop(output, None)

    async def run(self) -> None:
        """Write what is due until cancelled.  What cannot be written now is tried again, and nobody reads it."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._due:
                if not await self._write():
                    await self._clock.sleep(RETRY_S)

    async def _write(self) -> bool:
        """Write what is due, as much as one write takes; return whether it is on disk."""
        batch = self._batch()
        try:
            await self._store.save([checkpoint for _, checkpoint in batch])
        except Exception as error:  # whatever it is: the requests go on, and so do the others
            self._failed(error)
            for output, _ in batch:
                self.due(output)
            return False
        self._failing = False
        for output, checkpoint in batch:
            self._written(output, checkpoint)
        return True

    def _batch(self) -> list[tuple[JournaledOutput, Checkpoint]]:
        batch: list[tuple[JournaledOutput, Checkpoint]] = []
        size = 0
        while self._due and len(batch) < BATCH and size < BATCH_BYTES:
            output = next(iter(self._due))
            del self._due[output]
            checkpoint = output.checkpoint(self._epoch, self._end, self._wall_s())
            batch.append((output, checkpoint))
            size += checkpoint.size_bytes
        return batch

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            log.error("detached work cannot be written down: %s; it is tried again, and nothing is delivered", error)
        self._failing = True
