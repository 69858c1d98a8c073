"""Writes to the journal: one thread, many writes in one transaction, each caller woken when it is on the disk."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlalchemy import Connection

from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.storage.journal.database import Database
from scheduler_svc.storage.journal.errors import in_words, is_lost, is_trouble
from scheduler_svc.storage.journal.pending_write import PendingItem, PendingWrite, run_together
from scheduler_svc.storage.journal.tables.header import HEADER

log = logging.getLogger(__name__)

T = TypeVar("T")
Item = TypeVar("Item")

BATCH_WRITES = 512
BATCH_BYTES = 16 * 2**20
"""Bounds of one transaction; what waits beyond them goes into the next."""

BREAK_OFF_LATER_S = 0.01
"""How long after its limit a transaction is looked at again."""

PROBE_BYTES = 256 * 2**10
"""What a full database must be able to take before it counts as working again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WriterLimits:
    """Bounds of the writer."""

    waiting: int = 8_192  # writes that wait
    waiting_bytes: int = 256 * 2**20  # of them, as their callers say
    wait_s: float = 5.0  # from a write's arrival to its commit; beyond it the journal counts as slow
    probe_s: float = 1.0  # while in trouble: between two tries whether the database works again
    idle_probe_s: float = 10.0  # with nothing to write: between two looks whether the database is there
    close_s: float = 5.0  # that ``close`` waits for what is pending


@dataclass(frozen=True, kw_only=True, slots=True)
class WriterFigures:
    """What the writer did since the start."""

    writes: int = 0  # committed
    commits: int = 0
    refused: int = 0  # for want of a journal that works, or of room to wait
    failed: int = 0  # their transaction did not commit
    commit_s: float = 0.0  # time in transactions, all together
    largest_batch: int = 0  # writes of one transaction
    waiting: int = 0  # now
    waiting_bytes: int = 0  # now


class Writer:
    """Commits writes in groups.  Never awaited on the way of an interactive request.

    ``write`` and ``post`` belong to the event loop, the rest to the writer's thread; a lock is around what both use.
    """

    def __init__(self, database: Database, limits: WriterLimits | None = None) -> None:
        self._database = database
        self._limits = limits or WriterLimits()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="journal writer", daemon=True)
        self._changed = threading.Condition()
        self._pending: deque[PendingWrite[Any]] = deque()
        self._pending_bytes = 0
        self._closing = False
        self._failure = ""  # of the last transaction, in words
        self._began_at: float | None = None  # the transaction that runs now, on the monotonic clock
        self._figures = WriterFigures()
        self._probed_at = 0.0  # on the monotonic clock
        self._committing = False  # the transaction that runs now has done its work
        self._refused = 0

    def start(self) -> None:
        """Start the thread, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why nothing can be written now, in words; empty while the journal works.  Cleared by the next commit."""
        if self._failure:
            return self._failure
        began_at = self._began_at
        if began_at is not None and self._is_slow:
            return f"slow: a commit has taken {time.monotonic() - began_at:.0f} s so far"
        return ""

    @property
    def _is_slow(self) -> bool:
        began_at = self._began_at
        return began_at is not None and time.monotonic() - began_at > self._limits.wait_s

    @property
    def figures(self) -> WriterFigures:
        """What was written since the start, and what waits."""
        return replace(
            self._figures, refused=self._refused, waiting=len(self._pending), waiting_bytes=self._pending_bytes
        )

    async def write(self, work: Callable[[Connection], T], size_bytes: int = 0, *, frees: bool = False) -> T:
        """Return what ``work`` returned, once what it wrote is on the disk.

        ``work`` runs in the writer's thread, in a transaction with others' works; an error of its own undoes it alone,
        and is raised here.  It may run twice, so it must change nothing but the database.  ``size_bytes``: roughly what
        it holds while it waits.  ``frees``: it only deletes; so it is tried also in trouble, and not together with
        works that need space: a full database has room again through it alone.

        Raises:
            JournalUnavailable: the journal is in trouble, too many writes wait, or this one was not committed within
                ``WriterLimits.wait_s``.  In the last case, or if the connection broke during the commit, it may be
                written all the same.
        """
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        return await self._written(PendingWrite(work, size_bytes, result, frees=frees))

    async def write_item(
        self, many: Callable[[Connection, Sequence[Item]], None], item: Item, size_bytes: int = 0
    ) -> None:
        """Write one item as ``write`` does, with the items of the same kind that wait beside it.

        ``many`` writes items in their order and is the same object for all of a kind; if it fails it is given each item
        by itself.  Raises JournalUnavailable, and what ``many`` raises for this item alone.
        """
        result: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._written(PendingItem(many, item, size_bytes, result))

    async def _written(self, write: PendingWrite[T]) -> T:
        self._take(write)
        try:
            async with asyncio.timeout(self._limits.wait_s):
                return await write.result
        except TimeoutError:
            self._refused += 1
            self._break_off()
            raise JournalUnavailable(f"a write took longer than {self._limits.wait_s:g} s") from None

    def _break_off(self, began_at: float | None = None) -> None:
        """End the transaction once it has taken too long, where the server of the database does not even answer.

        ``began_at``: the transaction that is meant; None: the one that runs now.
        """
        running = self._began_at
        if running is None or self._loop is None or (began_at is not None and running != began_at):
            return
        left_s = running + self._limits.wait_s - time.monotonic()
        if left_s < 0:
            self._database.break_off(self._thread)
        elif began_at is None:  # it began after the arrival of the write that waited for it
            self._loop.call_later(left_s + BREAK_OFF_LATER_S, self._break_off, running)

    def post(self, work: Callable[[Connection], object], size_bytes: int, done: Callable[[bool], None]) -> None:
        """Have ``work`` written some time and wait for nothing; ``done`` is told on the event loop whether it was.

        Raises JournalUnavailable if the journal is in trouble, or too many writes wait.
        """
        result: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._take(PendingWrite(work, size_bytes, result))
        result.add_done_callback(lambda ended: done(not ended.cancelled() and ended.exception() is None))

    def _take(self, write: PendingWrite[Any]) -> None:
        why = self._refusal(write)
        if why:
            self._refused += 1
            if self._is_slow:
                self._database.break_off(self._thread)
            raise JournalUnavailable(why)
        with self._changed:
            self._pending.append(write)
            self._pending_bytes += write.size_bytes
            self._changed.notify()

    def _refusal(self, write: PendingWrite[Any]) -> str:
        limits = self._limits
        if self._closing or self._loop is None:
            return "the scheduler is not using it now"
        if not write.frees and (trouble := self.trouble):
            return trouble
        if len(self._pending) >= limits.waiting:
            return f"{limits.waiting} writes wait already"
        if self._pending and self._pending_bytes + write.size_bytes > limits.waiting_bytes:
            return f"{self._pending_bytes} bytes wait to be written already"
        return ""

    async def close(self) -> None:
        """Write what is pending and stop, within ``WriterLimits.close_s``; what is left over fails."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is None:
            return
        await asyncio.to_thread(self._thread.join, self._limits.close_s)
        self._database.break_off(self._thread)
        left = list(self._taken(len(self._pending), None))
        if left:
            log.error("journal: %d writes were not written within %g s", len(left), self._limits.close_s)
        self._settle(left, JournalUnavailable("the scheduler stops"))

    # ------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        while batch := self._next_batch():
            self._commit(batch)
            if batch[0].frees and self._failure and time.monotonic() - self._probed_at >= self._limits.probe_s:
                self._probe()  # writes that free space come although it is in trouble, and may have mended it

    def _next_batch(self) -> list[PendingWrite[Any]]:
        """Wait for writes and take them; meanwhile look after the database.  Empty: the writer closes."""
        while True:
            with self._changed:
                pause_s = self._limits.probe_s if self._failure else self._limits.idle_probe_s
                woken = self._changed.wait_for(lambda: bool(self._pending) or self._closing, pause_s)
            if batch := self._taken(BATCH_WRITES, BATCH_BYTES):
                return batch
            if self._closing:
                return []
            if not woken:
                self._probe()

    def _taken(self, most: int, most_bytes: int | None) -> list[PendingWrite[Any]]:
        """Take the oldest writes that wait, without those whose callers gave up.

        Those that free space are not taken together with others.
        """
        taken: list[PendingWrite[Any]] = []
        taken_bytes = 0
        with self._changed:
            while self._pending and len(taken) < most:
                size = self._pending[0].size_bytes
                if taken and most_bytes is not None and taken_bytes + size > most_bytes:
                    break
                if taken and most_bytes is not None and taken[0].frees != self._pending[0].frees:
                    break
                write = self._pending.popleft()
                self._pending_bytes -= size
                if not write.result.done():
                    taken.append(write)
                    taken_bytes += size
        return taken

    def _commit(self, batch: list[PendingWrite[Any]]) -> None:
        self._began_at = began_at = time.monotonic()
        try:
            self._transaction(batch)
        except Exception as error:
            self._note_failure(error, batch)
        else:
            self._note_commit(len(batch), time.monotonic() - began_at, works=not batch[0].frees)
            self._settle(batch, None)
        finally:
            self._began_at = None

    def _transaction(self, batch: list[PendingWrite[Any]]) -> None:
        """Run a batch in one transaction; again on a new connection if the server was restarted since the last one."""
        try:
            self._run_batch(batch)
        except Exception as error:
            if self._committing or not is_lost(error) or self._is_slow:
                raise
            self._run_batch(batch)

    def _run_batch(self, batch: list[PendingWrite[Any]]) -> None:
        """Run a batch in one transaction; if a work of it fails by itself, again with each in a savepoint."""
        try:
            self._run_works(batch, apart=False)
        except Exception as error:
            if is_trouble(error):
                raise
            self._run_works(batch, apart=True)

    def _run_works(self, batch: list[PendingWrite[Any]], *, apart: bool) -> None:
        self._committing = False
        with self._database.writing() as connection:
            if not apart:
                run_together(batch, connection)
            for write in batch if apart else ():
                try:
                    with connection.begin_nested():
                        write.run(connection)
                except Exception as error:
                    if is_trouble(error):
                        raise
                    write.error = error
            self._committing = True

    def _probe(self) -> None:
        """Find out whether the database works: by a write while it did not, else by a look at it."""
        self._began_at = self._probed_at = began_at = time.monotonic()
        try:
            if self._failure:
                for content in (bytes(PROBE_BYTES), None):
                    with self._database.writing() as connection:
                        connection.execute(HEADER.update().values(probe=content))
                self._note_commit(0, time.monotonic() - began_at)
            else:
                with self._database.reading(began_at + self._limits.wait_s) as connection:
                    connection.execute(HEADER.select()).one()
        except Exception as error:
            self._note_failure(error, [])
        finally:
            self._began_at = None

    def _note_commit(self, writes: int, took_s: float, *, works: bool = True) -> None:
        """Count a transaction; ``works``: whether it shows that the journal can be written."""
        before = self._figures
        self._figures = replace(
            before,
            writes=before.writes + writes,
            commits=before.commits + 1,
            commit_s=before.commit_s + took_s,
            largest_batch=max(before.largest_batch, writes),
        )
        if self._failure and works:
            log.warning("journal: it works again (%s before)", self._failure)
            self._failure = ""

    def _note_failure(self, error: Exception, batch: list[PendingWrite[Any]]) -> None:
        why = in_words(error)
        if not self._failure:
            log.error("journal: %d writes failed: %s; detached work is refused until it works again", len(batch), why)
        self._failure = why
        self._figures = replace(self._figures, failed=self._figures.failed + len(batch))
        unavailable = JournalUnavailable(why)
        unavailable.__cause__ = error
        self._settle(batch, unavailable)

    def _settle(self, batch: list[PendingWrite[Any]], error: Exception | None) -> None:
        """Wake the callers of a batch, all in one call of the event loop."""
        if not batch or self._loop is None:
            return

        def wake() -> None:
            for write in batch:
                write.settle(error)

        try:
            self._loop.call_soon_threadsafe(wake)
        except RuntimeError:
            return  # the loop has ended, and with it everybody who waited
