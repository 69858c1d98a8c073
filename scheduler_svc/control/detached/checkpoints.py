"""Writes down what is new of detached requests: one write at a time, with all that is due by then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sage_common.clock import Clock, Timer
from scheduler_svc.control.detached.journaled_output import JournaledOutput
from scheduler_svc.control.journal.detached import Checkpoint, DetachedEnd, DetachedStore
from scheduler_svc.domain.errors import JournalUnavailable

log = logging.getLogger(__name__)

BATCH = 256
"""Most requests of which one write has something."""

BATCH_BYTES = 4 * 2**20
"""Size at which a write takes no further request."""

RETRY_S = 1.0
"""Seconds until a write is tried again that failed."""


@dataclass(slots=True)
class _Alone:
    """A request that is written alone, because a write failed for what was in it."""

    timer: Timer | None = None  # until it is tried again
    told: bool = False  # the log says so


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
        self._alone: dict[JournaledOutput, _Alone] = {}  # requests of a write that failed for what was in it
        self._awake = asyncio.Event()
        self._failing = False
        self._frozen = False

    def freeze(self) -> None:
        """Write nothing more."""
        self._frozen = True
        self._due.clear()

    def due(self, output: JournaledOutput) -> None:
        """Have what is new of a request written down."""
        alone = self._alone.get(output.lead)
        if not self._frozen and (alone is None or alone.timer is None):
            self._due[output] = None
            self._awake.set()

    def drop(self, output: JournaledOutput) -> None:
        """Write nothing more of a request."""
        self._due.pop(output, None)
        self._join(output)

    async def run(self) -> None:
        """Write what is due until cancelled.  What cannot be written now is tried again, and nobody reads it."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            while self._due:
                if not await self._write():
                    await self._clock.sleep(RETRY_S)

    async def _write(self) -> bool:
        """Write what is due, as much as one write takes; return False if the journal takes nothing now."""
        batch = self._batch()
        try:
            await self._store.save([checkpoint for _, checkpoint in batch])
        except JournalUnavailable as error:
            self._failed(error)
            for output, _ in batch:
                self.due(output)
            return False
        except Exception as error:  # something in it cannot be written: the others must not wait for that
            self._refused([output for output, _ in batch], error)
            return True
        self._failing = False
        for output, checkpoint in batch:
            self._join(output)
            self._written(output, checkpoint)
        return True

    def _batch(self) -> list[tuple[JournaledOutput, Checkpoint]]:
        """Return what one write takes; of a request that made one fail, nothing else is in it."""
        batch: list[tuple[JournaledOutput, Checkpoint]] = []
        size = 0
        while self._due and len(batch) < BATCH and size < BATCH_BYTES:
            output = next(iter(self._due))
            if output.lead in self._alone and batch:
                break
            for each in output.together:
                self._due.pop(each, None)
                checkpoint = each.checkpoint(self._epoch, self._end, self._wall_s())
                batch.append((each, checkpoint))
                size += checkpoint.size_bytes
            if output.lead in self._alone:
                break
        return batch

    def _refused(self, outputs: Sequence[JournaledOutput], error: Exception) -> None:
        """Have each of the requests be written alone from now on; one that fails alone is tried again after a while."""
        leads = {output.lead for output in outputs}
        if len(leads) > 1:
            for output in outputs:
                self._alone.setdefault(output.lead, _Alone())
                self.due(output)
            return
        (lead,) = leads
        alone = self._alone.setdefault(lead, _Alone())
        if not alone.told:
            alone.told = True
            log.error("detached request %s cannot be written down: %s; it is tried again", lead.key, error)
        alone.timer = self._clock.call_at(self._clock.now() + RETRY_S, lambda: self._try_again(outputs, alone))

    def _try_again(self, outputs: Sequence[JournaledOutput], alone: _Alone) -> None:
        alone.timer = None
        for output in outputs:
            self.due(output)
        for output in outputs[0].choices:
            output.wake()  # what became due meanwhile of other choices

    def _join(self, output: JournaledOutput) -> None:
        """Have a request be written together with others again."""
        alone = self._alone.pop(output.lead, None)
        if alone is not None and alone.timer is not None:
            alone.timer.cancel()

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            log.error("detached work cannot be written down: %s; it is tried again, and nothing is delivered", error)
        self._failing = True
