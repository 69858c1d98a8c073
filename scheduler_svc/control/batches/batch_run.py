"""One batch that has not ended: its lines are checked, then run, and it ends once each has a result."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sage_common.clock import Clock
from scheduler_svc.control.batches.line_codec import CANCELLED, EXPIRED, BatchLine, LineFault
from scheduler_svc.control.batches.line_reader import RawLine, lines_of
from scheduler_svc.control.batches.line_runner import LineRunner
from scheduler_svc.control.batches.line_window import BatchPlaces, LineWindow, Place
from scheduler_svc.control.batches.results import RETRY_S, Results
from scheduler_svc.control.batches.settings import BatchSettings
from scheduler_svc.control.batches.validation import validated
from scheduler_svc.control.journal.batches import (
    BatchState,
    BatchStore,
    LineResult,
    OwnedId,
    Saved,
    StoredBatch,
    StoredFile,
)
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest, JournalUnavailable

T = TypeVar("T")

log = logging.getLogger(__name__)

STARTED_AT_ONCE = 8
"""Lines that begin in one turn of the event loop."""

RESULTS_AT_ONCE = 256
"""Results of lines that did not run which are made before they are written down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchMeans:
    """What all batches run with."""

    store: BatchStore
    lines: LineRunner
    window: LineWindow
    validating: asyncio.Semaphore  # one batch at a time: checking lines only computes
    clock: Clock
    wall_clock: Callable[[], float]  # seconds since 1970
    settings: BatchSettings
    changed: Callable[[StoredBatch, Sequence[StoredFile]], None]  # told of each change that is written down


class BatchRun:
    """Runs one batch to its end, from wherever an earlier scheduler left it."""

    def __init__(self, batch: StoredBatch, means: BatchMeans) -> None:
        self.batch = batch
        self._means = means
        self._changing = asyncio.Lock()
        self._results = Results(batch.key, means.store, means.clock, means.wall_clock, self._saved)
        self._done = bytearray()  # a bit for each line that has a result
        self._work: asyncio.Task[None] | None = None  # what running lines belong to
        self._why = EXPIRED if batch.cancelling_at is None else CANCELLED
        self._until = 0.0  # when it expires, on the control clock
        self._stopped = batch.cancelling_at is not None  # no line runs any more

    async def run(self) -> None:
        """Return once the batch has ended and that is written down."""
        means = self._means
        self._until = means.clock.now() + self.batch.expires_at - means.wall_clock()
        if self._until <= means.clock.now():
            self._stopped = True
        timer = means.clock.call_at(self._until, self._stop)
        try:
            await self._until_stopped()
        finally:
            timer.cancel()
        if self.batch.state.ended:
            return
        await self._results.flush()
        if self._stopped:
            await self._write_rest()
        else:
            self._check_complete()
        await self._change(state=self._end(), ended_at=means.wall_clock())
        log.info("batch %s is %s: %d lines succeeded, %d did not", *self._figures())

    async def cancel(self) -> bool:
        """Run no further line; return once that is written down, with False if the batch had ended.

        Raises JournalUnavailable: nothing changed.
        """
        async with self._changing:
            if self.batch.state.ended:
                return False
            if self.batch.cancelling_at is None:
                now = self._means.wall_clock()
                await self._write(replace(self.batch, state=BatchState.CANCELLING, cancelling_at=now))
                self._why = CANCELLED
        self._stop()
        return True

    # --- its life -----------------------------------------------------------------------------------

    async def _until_stopped(self) -> None:
        if self._stopped:
            await self._load_lines_done()
            return
        self._work = asyncio.get_running_loop().create_task(self._lines(), name=f"batch {self.batch.key.id}")
        try:
            await asyncio.wait({self._work})
        except asyncio.CancelledError:
            self._work.cancel()
            await asyncio.wait({self._work})
            raise
        if not self._work.cancelled():
            self._work.result()

    def _stop(self) -> None:
        """End what runs: the batch expired, or is cancelled."""
        self._stopped = True
        if self._work is not None:
            self._work.cancel()

    async def _lines(self) -> None:
        if self.batch.state is BatchState.VALIDATING:
            await self._validate()
        if self.batch.state is BatchState.IN_PROGRESS:
            await self._load_lines_done()
            await self._run_lines()

    async def _validate(self) -> None:
        means, batch = self._means, self.batch
        async with means.validating:
            lines = self._raw_lines(means.settings.line_bytes)
            total, errors = await validated(lines, means.lines.codec, batch.endpoint, means.settings)
        now = means.wall_clock()
        if errors:
            await self._change(state=BatchState.FAILED, ended_at=now, total=total, errors=tuple(errors))
            log.info("batch %s cannot run: %s", batch.key, errors[0].message)
        else:
            await self._change(state=BatchState.IN_PROGRESS, started_at=now, total=total)

    async def _run_lines(self) -> None:
        places, begun = BatchPlaces(self._means.window, self.batch.key.tenant), 0
        async with asyncio.TaskGroup() as tasks:
            async for line in self._lines_left():
                place = await places.take()
                task = tasks.create_task(self._run_line(line, place))
                task.add_done_callback(place.given_back_by)  # also of one that never began
                begun += 1
                if not begun % STARTED_AT_ONCE:
                    await asyncio.sleep(0)

    async def _run_line(self, line: BatchLine, place: Place) -> None:
        clock = self._means.clock

        async def pause(seconds: float) -> None:
            await place.park(lambda: clock.sleep(seconds))

        await self._means.lines.run(line, self.batch, self._until, self._results.write, pause)

    async def _write_rest(self) -> None:
        """Give each line that has no result the one that says why."""
        await self._load_lines_done()
        if not self.batch.total:  # it ended before its lines were counted: none is known to be a line
            return
        some: list[LineResult] = []
        async for line in self._lines_left():
            content = self._means.lines.codec.not_run(line, self.batch, self._why)
            some.append(LineResult(index=line.index, succeeded=False, content=content))
            if len(some) == RESULTS_AT_ONCE:
                await self._results.write_all(some)
                some = []
        await self._results.write_all(some)

    def _check_complete(self) -> None:
        """Raise RuntimeError if a line has no result, as where the input is not what it was when it was counted."""
        batch = self.batch
        if batch.completed + batch.failed != batch.total:
            raise RuntimeError(f"{batch.completed + batch.failed} of {batch.total} lines have a result")

    def _end(self) -> BatchState:
        if not self._stopped:
            return BatchState.COMPLETED
        return BatchState.CANCELLED if self._why is CANCELLED else BatchState.EXPIRED

    # --- reading ------------------------------------------------------------------------------------

    async def _load_lines_done(self) -> None:
        key = self.batch.key
        self._done = bytearray(await self._kept_trying(lambda: self._means.store.lines_done(key)))

    async def _lines_left(self) -> AsyncIterator[BatchLine]:
        """Yield the lines that had no result when ``_done`` was read."""
        codec, endpoint, done = self._means.lines.codec, self.batch.endpoint, self._done
        async for raw in self._raw_lines(None):  # they were checked, maybe under another bound
            place = raw.index // 8
            if place >= len(done) or not done[place] >> (raw.index % 8) & 1:
                try:
                    yield codec.parse(raw.content, raw.index, endpoint)
                except LineFault as fault:
                    await self._results.write(self._no_line(raw, fault))

    def _no_line(self, raw: RawLine, fault: LineFault) -> LineResult:
        """Return the result of what another version of the scheduler took for a line, and this one does not."""
        line = BatchLine(index=raw.index, custom_id=f"line {raw.number}", url="", body={}, digest=b"")
        error = InvalidRequest([FieldViolation(field=fault.param or "line", description=str(fault))])
        content = self._means.lines.codec.failed(line, self.batch, error)
        return LineResult(index=raw.index, succeeded=False, content=content)

    def _raw_lines(self, limit_bytes: int | None) -> AsyncIterator[RawLine]:
        key = OwnedId(tenant=self.batch.key.tenant, id=self.batch.input_file_id)

        async def read(offset: int) -> bytes:
            return await self._kept_trying(lambda: self._means.store.read(key, offset))

        return lines_of(read, limit_bytes)

    # --- writing ------------------------------------------------------------------------------------

    async def _change(self, **changes: Any) -> None:
        """Write down a change; while the journal takes nothing it is tried again."""

        async def write() -> None:
            async with self._changing:
                if self.batch.cancelling_at is None or "ended_at" in changes:
                    await self._write(replace(self.batch, **changes))

        await self._kept_trying(write)

    async def _write(self, batch: StoredBatch) -> None:
        await self._means.store.change_batch(batch)
        self.batch = replace(batch, completed=self.batch.completed, failed=self.batch.failed)
        self._means.changed(self.batch, ())

    def _saved(self, saved: Saved) -> None:
        self.batch = replace(self.batch, completed=saved.batch.completed, failed=saved.batch.failed)
        self._means.changed(self.batch, saved.files)

    async def _kept_trying(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what ``work`` returns, tried again while the journal is in trouble."""
        while True:
            try:
                return await work()
            except JournalUnavailable:
                await self._means.clock.sleep(RETRY_S)

    def _figures(self) -> tuple[OwnedId, str, int, int]:
        return self.batch.key, self.batch.state.value, self.batch.completed, self.batch.failed
