"""The batches of all tenants: accepts them, runs them, tells of them, and deletes them after their time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from sage_common.clock import Clock
from scheduler_svc.control.batches.batch_run import BatchMeans, BatchRun
from scheduler_svc.control.batches.figures import BatchFigures
from scheduler_svc.control.batches.files import Files
from scheduler_svc.control.batches.line_codec import LineCodec
from scheduler_svc.control.batches.line_runner import LineRunner
from scheduler_svc.control.batches.line_window import LineWindow
from scheduler_svc.control.batches.quotas import Quotas
from scheduler_svc.control.batches.settings import BatchSettings
from scheduler_svc.control.batches.turns import Turns
from scheduler_svc.control.journal.batches import (
    BATCH_BYTES,
    BatchStore,
    FilePurpose,
    OwnedId,
    StoredBatch,
    StoredFile,
)
from scheduler_svc.control.requests.intake import Intake
from scheduler_svc.domain.errors import (
    BatchNotFound,
    FieldViolation,
    InvalidRequest,
    JournalUnavailable,
    RequestConflict,
)

log = logging.getLogger(__name__)

EXPIRY_INTERVAL_S = 5.0
"""Seconds between two looks for files and batches whose time is over."""

FAILED_RUN_S = 30.0
"""Seconds after which a batch goes on whose run met a defect of the scheduler."""

SUBMITTED_AT_ONCE = 256


class Batches:
    """What is known of each batch, in memory, and the runs of those that have not ended."""

    def __init__(
        self,
        store: BatchStore,
        intake: Intake,
        codec: LineCodec,
        clock: Clock,
        wall_clock: Callable[[], float],
        settings: BatchSettings,
    ) -> None:
        """``wall_clock``: seconds since 1970."""
        self._store = store
        self._clock = clock
        self._wall_clock = wall_clock
        self.settings = settings
        self._quotas = Quotas(settings)
        self.files = Files(store, self._quotas, settings, wall_clock)
        self._lines = LineRunner(intake, codec, clock, wall_clock, settings)
        self._window = LineWindow(settings.lines_in_flight)
        self._means = BatchMeans(
            store=store,
            lines=self._lines,
            window=self._window,
            validating=asyncio.Semaphore(),
            clock=clock,
            wall_clock=wall_clock,
            settings=settings,
            changed=self._changed,
        )
        self._batches: dict[OwnedId, StoredBatch] = {}
        self._runs: dict[OwnedId, BatchRun] = {}  # those that have not ended
        self._to_start: list[BatchRun] = []
        self._awake = asyncio.Event()
        self._submissions = Turns(SUBMITTED_AT_ONCE, "batches that are submitted at the same time")
        self._completed = self._failed = 0

    @property
    def figures(self) -> BatchFigures:
        """What batches did since the start, and do now."""
        return BatchFigures(
            unfinished=len(self._runs),
            in_flight=self._window.taken,
            completed=self._completed,
            failed=self._failed,
            retries=self._lines.retries,
            bytes=self._quotas.bytes,
        )

    async def load(self) -> None:
        """Take what an earlier scheduler left.  Call before anything is accepted.  Raises JournalUnavailable."""
        files, batches = await self._store.load()
        self.files.load(files)
        for batch in batches:
            self._batches[batch.key] = batch
            running = not batch.state.ended
            self._quotas.add(batch.key.tenant, batches=1, unfinished=int(running), size_bytes=BATCH_BYTES)
            if running:
                self.files.begin_reading(_input(batch))
                self._start(batch)

    async def run(self) -> None:
        """Run batches, and delete what is over, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._expire())
            while True:
                await self._awake.wait()
                self._awake.clear()
                for run in self._to_start:
                    tasks.create_task(self._run(run), name=f"batch {run.batch.key.id}")
                self._to_start.clear()

    # --- calls --------------------------------------------------------------------------------------

    async def submit(self, wanted: StoredBatch) -> tuple[StoredBatch, bool]:
        """Accept a batch once it is written down; the flag is True if it was accepted before.

        Raises InvalidRequest, FileNotFound, RequestConflict, TenantLimitReached, LimitReached, JournalUnavailable.
        """
        key = wanted.key
        async with self._submissions.turn(key):  # bounded: a write to the journal is
            known = self._batches.get(key)
            if known is not None:
                if known.digest != wanted.digest:
                    raise RequestConflict(key.id, what="batch")
                return known, True
            self._check_input(wanted)
            self._quotas.take(key.tenant, batches=1, unfinished=1, size_bytes=BATCH_BYTES)
            self.files.begin_reading(_input(wanted))
            try:
                await self._store.add_batch(wanted)
            except BaseException:
                self._quotas.add(key.tenant, batches=-1, unfinished=-1, size_bytes=-BATCH_BYTES)
                self.files.end_reading(_input(wanted))
                raise
            self._batches[key] = wanted
            self._start(wanted)
            return wanted, False

    def find(self, key: OwnedId) -> StoredBatch:
        """Return a batch.  Raises BatchNotFound."""
        batch = self._batches.get(key)
        if batch is None:
            raise BatchNotFound(key.id)
        return batch

    def of_tenant(self, tenant: str) -> Iterator[StoredBatch]:
        """Yield the batches of a tenant."""
        return (batch for key, batch in self._batches.items() if key.tenant == tenant)

    async def cancel(self, key: OwnedId) -> tuple[StoredBatch, bool]:
        """End a batch early; the flag is False if it had ended.  Raises BatchNotFound, JournalUnavailable."""
        batch, run = self.find(key), self._runs.get(key)
        if run is None:
            return batch, False
        cancelled = await run.cancel()
        return self._batches.get(key, batch), cancelled

    # --- inside -------------------------------------------------------------------------------------

    def _check_input(self, wanted: StoredBatch) -> None:
        """Raise FileNotFound, InvalidRequest."""
        file = self.files.find(_input(wanted))
        if file.purpose is not FilePurpose.BATCH:
            problem = f"{file.key.id!r} is the output of a batch"
            raise InvalidRequest([FieldViolation(field="input_file_id", description=problem)])

    def _start(self, batch: StoredBatch) -> None:
        run = self._runs[batch.key] = BatchRun(batch, self._means)
        self._to_start.append(run)
        self._awake.set()

    async def _run(self, run: BatchRun) -> None:
        """Run a batch to its end.  A defect that it meets stops no other batch: it goes on after a while."""
        while not run.batch.state.ended:
            try:
                await run.run()
            except Exception:
                log.exception("batch %s stopped for a defect of the scheduler; it goes on later", run.batch.key)
                await self._clock.sleep(FAILED_RUN_S)

    def _changed(self, batch: StoredBatch, files: Sequence[StoredFile]) -> None:
        """Take what is written down of a batch that runs."""
        before = self._batches[batch.key]
        self._completed += batch.completed - before.completed
        self._failed += batch.failed - before.failed
        self._batches[batch.key] = batch
        for file in files:
            self.files.note(file)
        if batch.state.ended and not before.state.ended:
            del self._runs[batch.key]
            self._quotas.add(batch.key.tenant, unfinished=-1)
            self.files.end_reading(_input(batch))
            self.files.settle([batch.output, batch.error_output], batch.keep_until)

    async def _expire(self) -> None:
        """Delete what is over, every few seconds; what cannot be deleted now is, later."""
        while True:
            await self._clock.sleep(EXPIRY_INTERVAL_S)
            try:
                await self._delete_old()
                await self.files.expire()
            except JournalUnavailable as error:
                log.debug("batches and files whose time is over are deleted later: %s", error)

    async def _delete_old(self) -> None:
        now = self._wall_clock()
        old = [batch for batch in self._batches.values() if batch.keep_until is not None and batch.keep_until <= now]
        await self._store.remove_batches([batch.key for batch in old])
        for batch in old:
            del self._batches[batch.key]
            self._quotas.add(batch.key.tenant, batches=-1, size_bytes=-BATCH_BYTES)
            for output in (batch.output, batch.error_output):
                self.files.forget(output)


def _input(batch: StoredBatch) -> OwnedId:
    return replace(batch.key, id=batch.input_file_id)
