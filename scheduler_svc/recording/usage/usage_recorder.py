"""Gathers usage records and hands them on in batches; no request waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sage_common.clock import Clock
from scheduler_svc.control.journal.usage import UsageRecord, UsageRetention, UsageStore
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Outcome
from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.recording.usage.ended_request import usage_of
from scheduler_svc.recording.usage.usage_file import UsageFile
from scheduler_svc.recording.usage.usage_log import UsageLog

log = logging.getLogger(__name__)

WAITING_LIMIT = 20_000
"""Records that may wait for the journal; further ones are dropped and counted."""

FLUSH_S = 1.0
"""Seconds between two batches.  What a request's last attempt cost is known by then, too."""

RETAIN_S = 60.0
"""Seconds between two looks for records that need not be kept any more."""

CLOSE_S = 3.0
"""Seconds that the last batch may take."""

_SLICE = 256  # records that are made without letting the event loop do anything else: about 2 ms

WRITTEN, DROPPED_FULL, DROPPED_FAILED = "written", "dropped_queue_full", "dropped_not_written"


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageTargets:
    """Where records go."""

    store: UsageStore | None = None
    file: UsageFile | None = None
    log: UsageLog | None = None
    retention: UsageRetention | None = None  # of the store


class UsageRecorder:
    """Takes requests that ended, and hands their records to the store, the file and the log."""

    def __init__(
        self,
        clock: Clock,
        targets: UsageTargets,
        reason_of: Callable[[Outcome], str],
        *,
        wall: Callable[[], float],
    ) -> None:
        """``reason_of`` gives the label of an outcome; ``wall``: seconds since 1970."""
        self._clock = clock
        self._targets = targets
        self._reason_of = reason_of
        self._wall = wall
        self._ended: deque[LiveRequest] = deque()
        self._waiting: deque[UsageRecord] = deque()  # for the store
        self._counts: Counter[str] = Counter({WRITTEN: 0, DROPPED_FULL: 0, DROPPED_FAILED: 0})
        self._maybe_kept = False  # those that wait the longest: handed to the store, which has not answered

    def counts(self) -> Mapping[str, int]:
        """Count records since the start by what became of them: ``WRITTEN``, ``DROPPED_FULL``, ``DROPPED_FAILED``.

        One that the journal has and the file or the receiver of logs lacks counts as both written and dropped.
        """
        counts = self._counts.copy()
        if self._targets.log is not None:
            delivered, overflowed, not_delivered = self._targets.log.counts
            counts.update({DROPPED_FULL: overflowed, DROPPED_FAILED: not_delivered})
            if self._targets.store is None and self._targets.file is None:
                counts[WRITTEN] += delivered
        return dict(counts)

    def request_ended(self, live: LiveRequest, reason: str) -> None:
        """Take a request that ended, with the last of its choices; an EndListener of the request table."""
        if not live.all_ended:
            return
        if len(self._ended) >= WAITING_LIMIT:
            self._drop(1)
            return
        self._ended.append(live.lead)

    def start(self) -> None:
        """Begin the file, and the thread of the log.  Raises CannotRecord."""
        if self._targets.file is not None:
            self._targets.file.start()
        if self._targets.log is not None:
            self._targets.log.start()

    async def run(self) -> None:
        """Hand records on every FLUSH_S, and have old ones deleted every RETAIN_S, until cancelled."""
        retain_at = self._clock.now()
        while True:
            await self._clock.sleep(FLUSH_S)
            await self.flush()
            if self._clock.now() >= retain_at:
                retain_at = self._clock.now() + RETAIN_S
                await self.retain()

    async def flush(self) -> None:
        """Hand on what is there.  Never raises: what the journal cannot take now waits, up to WAITING_LIMIT."""
        while self._ended:
            made = list(self._made())
            self._wait_for_store(made)
            if self._targets.log is not None:
                self._targets.log.put(made)
            if self._targets.file is not None:
                self._count_in_file(len(made), await self._targets.file.append(made))
            await asyncio.sleep(0)
        most = _SLICE
        while self._waiting and self._targets.store is not None:
            batch = [self._waiting[index] for index in range(min(most, len(self._waiting)))]
            try:
                kept = await self._kept(self._targets.store, batch)
            except JournalUnavailable:
                return  # the journal itself says what is wrong with it
            if not kept and len(batch) > 1:
                most = 1  # find the one that cannot be kept
                continue
            most = _SLICE if not kept else most
            for _ in batch:
                self._waiting.popleft()
            self._counts[WRITTEN if kept else DROPPED_FAILED] += len(batch)

    async def _kept(self, store: UsageStore, batch: Sequence[UsageRecord]) -> bool:
        """Have records kept; return False if the journal works and does not take them.  Raises JournalUnavailable."""
        maybe_kept, self._maybe_kept = self._maybe_kept, True
        try:
            await store.add(batch, maybe_kept=maybe_kept)
        except JournalUnavailable:
            raise
        except Exception:
            if len(batch) == 1:
                log.exception("usage: a record cannot be kept, and is dropped: %s", batch[0])
            self._maybe_kept = maybe_kept
            return False
        self._maybe_kept = False
        return True

    async def retain(self) -> None:
        """Have records deleted that need not be kept any more."""
        store, retention = self._targets.store, self._targets.retention
        if store is None or retention is None:
            return
        try:
            deleted = await store.retain(retention, self._wall())
        except JournalUnavailable:
            return
        if deleted:
            log.info("usage: %d old records deleted", deleted)

    async def close(self) -> None:
        """Hand on what is left, within CLOSE_S.  The log goes on until ``close_log``."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.flush()
        except TimeoutError:
            log.warning("usage: %d records were not written within %g s", len(self._waiting), CLOSE_S)
        if self._targets.file is not None:
            await self._targets.file.close()

    async def close_log(self) -> None:
        """Have the log's records sent, for about a second where its receiver does not answer.  Call after ``close``."""
        if self._targets.log is not None:
            await asyncio.to_thread(self._targets.log.close)

    def _made(self) -> Iterator[UsageRecord]:
        """Make the records of the next requests."""
        since_1970_s = self._wall() - self._clock.now()
        for _ in range(min(_SLICE, len(self._ended))):
            yield usage_of(self._ended.popleft(), since_1970_s, self._reason_of)

    def _wait_for_store(self, made: Sequence[UsageRecord]) -> None:
        if self._targets.store is None:
            return
        fitting = max(0, WAITING_LIMIT - len(self._waiting))
        self._waiting.extend(made[:fitting])
        self._drop(len(made) - fitting)

    def _count_in_file(self, made: int, dropped: int) -> None:
        self._counts[DROPPED_FAILED] += dropped
        if self._targets.store is None and self._targets.file is not None:
            self._counts[WRITTEN] += made - dropped

    def _drop(self, records: int) -> None:
        if records <= 0:
            return
        if not self._counts[DROPPED_FULL]:
            log.error("usage: %d records wait for the journal; further ones are dropped", WAITING_LIMIT)
        self._counts[DROPPED_FULL] += records
