"""The journal's database: connections, transactions, and reads in threads with a time limit."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError

from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.storage.journal import postgresql, sqlite
from scheduler_svc.storage.journal.errors import UnusableJournal, in_words, is_damage, is_lost, is_trouble
from scheduler_svc.storage.journal.used_sockets import UsedSockets

log = logging.getLogger(__name__)

T = TypeVar("T")

Fence = Callable[[Connection], None]

READERS = 2
"""Threads that read."""

SECRET_PARTS = ("password", "secret", "scram")
"""What a URL's option is named that nobody must see, such as "sslpassword"."""

STATEMENTS_AT_ONCE = 4
"""How many times ``Limits.statement_s`` making the tables may take; each statement has that by the server's clock."""

READS_WAITING = 256
"""Reads that may wait for a thread; further ones are refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bounds of the database."""

    read_s: float = 10.0  # one read
    statement_s: float = 5.0  # PostgreSQL: to connect, and one statement; SQLite: a wait for another process's lock
    file_bytes: int = 8 * 2**30  # SQLite: the file; at this size it takes no more.  PostgreSQL: not bounded here


@dataclass(kw_only=False, slots=True)
class _Reading:
    """A read, and the thread that runs it."""

    deadline: float  # on the monotonic clock
    thread: int | None = None  # None: it waits for one, or is over

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.deadline


class Database:
    """A SQLite file or a PostgreSQL database.

    The writer uses ``writing`` in its own thread; everybody else reads with ``read``.
    """

    def __init__(self, url: str, limits: Limits | None = None, fence: Fence | None = None) -> None:
        """Check the URL, and make a SQLite file that is not there; connects to nothing yet.

        ``fence``: runs first in each transaction that writes; what it raises keeps the transaction from happening.

        Raises:
            UnusableJournal: the URL is of another kind of database, or the file cannot be made.
        """
        self._limits = limits or Limits()
        self._fence = fence
        self.url = _checked(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = self._make_engine()
        event.listen(self._engine, "checkin", self._given_back)
        self._readers = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="journal read")
        self.reads = 0  # that wait for a thread or have one
        self.damage = ""  # that a read met, in words
        self._closed = False
        self._sockets = UsedSockets(on=not self.is_sqlite)

    @property
    def name(self) -> str:
        """The URL without its passwords, for logs and errors."""
        secret = [key for key in self.url.query if any(part in key.lower() for part in SECRET_PARTS)]
        return self.url.difference_update_query(secret).render_as_string(hide_password=True)

    def _make_engine(self) -> Engine:
        if self.is_sqlite:
            assert self.url.database is not None, "checked"
            return sqlite.engine(self.url.database, self._limits.statement_s, self._limits.file_bytes)
        return postgresql.engine(self.url, self._limits.statement_s)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection in a transaction that may write: committed at the end, rolled back after an error."""
        engine = self._engine.execution_options(**{sqlite.WRITES: True})
        with engine.connect() as connection, self._sockets.of(connection), connection.begin():
            if self._fence is not None:
                self._fence(connection)
            yield connection

    @contextmanager
    def broken_off_late(self) -> Iterator[None]:
        """Let this thread wait for PostgreSQL for a few statements' time at most, also if the server is stopped."""
        timer = threading.Timer(
            STATEMENTS_AT_ONCE * self._limits.statement_s, self._sockets.break_off, (threading.get_ident(),)
        )
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def reading(self, deadline: float) -> Iterator[Connection]:
        """Give a connection whose SQLite statements are interrupted at ``deadline``, on the monotonic clock."""
        with self._engine.connect() as connection:
            if self.is_sqlite:
                with sqlite.interrupted(connection, lambda: self._closed or time.monotonic() > deadline):
                    yield connection
            else:
                with self._sockets.of(connection):
                    yield connection

    def _given_back(self, connection: DBAPIConnection | None, record: object) -> None:
        """Close what comes back after ``close``: the pool that it would go to is gone."""
        if self._closed and connection is not None:
            connection.close()

    def break_off(self, thread: threading.Thread) -> None:
        """End what a thread waits for, if it waits for PostgreSQL: its statement fails."""
        self._sockets.break_off(thread.ident)

    @property
    def limit_bytes(self) -> int:
        """Most bytes of a SQLite file; 0: not bounded here."""
        return self._limits.file_bytes if self.is_sqlite else 0

    def size(self, connection: Connection) -> int:
        """Return the bytes that are in use."""
        return sqlite.size(connection) if self.is_sqlite else postgresql.size(connection)

    def size_on_disk(self, connection: Connection) -> int:
        """Return the bytes that the database takes, with those that are not in use."""
        return sqlite.file_bytes(connection) if self.is_sqlite else postgresql.size(connection)

    async def vacuum(self, tables: Sequence[str]) -> None:
        """Give back the space that is unused outside of transactions, in a thread.  Raises JournalUnavailable."""
        work = sqlite.checkpoint if self.is_sqlite else postgresql.vacuum
        try:
            await asyncio.to_thread(work, self._engine, tables)
        except Exception as error:
            if is_trouble(error):
                raise JournalUnavailable(in_words(error)) from error
            raise

    async def read(self, work: Callable[[Connection], T], *, within_s: float | None = None) -> T:
        """Return what ``work`` returns, which reads in a thread and must not write.

        Raises JournalUnavailable if the database fails or does not answer within ``within_s``, by default
        ``Limits.read_s``, or too many reads wait already.  An error of ``work``'s own is raised as it is.
        """
        if self.reads >= READS_WAITING + READERS:
            raise JournalUnavailable(f"{READS_WAITING} reads of the journal wait already")
        limit_s = self._limits.read_s if within_s is None else within_s
        self.reads += 1
        loop, reading = asyncio.get_running_loop(), _Reading(time.monotonic() + limit_s)
        running = loop.run_in_executor(self._readers, self._read, work, reading)
        running.add_done_callback(self._read_ended)
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.shield(running)
        except TimeoutError:
            self._sockets.break_off(reading.thread)
            raise JournalUnavailable(f"a read took longer than {limit_s:g} s") from None
        except JournalUnavailable:
            if reading.is_late:  # the thread was told to end before this task was
                raise JournalUnavailable(f"a read took longer than {limit_s:g} s") from None
            raise

    def _read(self, work: Callable[[Connection], T], reading: _Reading) -> T:
        reading.thread = threading.get_ident()
        try:
            try:
                return self._read_once(work, reading.deadline)
            except Exception as error:
                if not is_lost(error) or reading.is_late or self._closed:
                    raise
                return self._read_once(work, reading.deadline)  # the server was restarted since the last read
        except Exception as error:
            if is_damage(error):
                self._note_damage(in_words(error))
            if is_trouble(error):
                raise JournalUnavailable(in_words(error)) from error
            raise
        finally:
            reading.thread = None

    def _note_damage(self, what: str) -> None:
        """Log the first damage that is met, and keep it for whoever asks how the journal is."""
        if not self.damage:
            self.damage = what
            log.error("journal %s: %s", self.name, what)

    def _read_once(self, work: Callable[[Connection], T], deadline: float) -> T:
        with self.reading(deadline) as connection:
            return work(connection)

    def _read_ended(self, running: asyncio.Future[T]) -> None:
        self.reads -= 1
        if not running.cancelled():
            running.exception()  # its reader may have given up

    def close(self) -> None:
        """Close all connections; reads that run fail soon, so that the process can end."""
        self._closed = True
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._sockets.break_off_all()
        self._engine.dispose()


def _checked(url: str) -> URL:
    """Return the URL with its driver.  Raises UnusableJournal."""
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):  # the port is no number
        raise UnusableJournal("journal.url is not a database URL, such as sqlite:////var/lib/sage/journal.db") from None
    if found.drivername in ("sqlite", "sqlite+pysqlite"):
        if not found.database or found.database == ":memory:" or found.query:
            raise UnusableJournal("journal.url: SQLite takes the path of a file, and no options")
        path = os.path.realpath(found.database)  # one file has one lock
        return found.set(drivername="sqlite", database=path)
    if found.drivername in ("postgresql", "postgresql+psycopg"):
        return found.set(drivername="postgresql+psycopg")
    raise UnusableJournal(f"journal.url: {found.drivername!r} is neither sqlite nor postgresql")
