"""The journal as a whole: its database, tables and writer."""

from __future__ import annotations

import fcntl
import logging
import os
from dataclasses import dataclass

from scheduler_svc.storage.journal.database import Database, Fence, Limits
from scheduler_svc.storage.journal.errors import UnusableJournal
from scheduler_svc.storage.journal.schema import prepare
from scheduler_svc.storage.journal.writer import Writer, WriterLimits

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalSettings:
    """Where the journal is, and how long it may take."""

    url: str
    fleet: str = ""  # that the database must belong to; empty: any
    limit_s: float = 5.0  # of a write, from its arrival to its commit
    max_bytes: int = 8 * 2**30  # of a SQLite file


class Journal:
    """Opens the database, and has its tables and its writer.  A SQLite file is used by one process at a time."""

    def __init__(self, settings: JournalSettings, fence: Fence | None = None) -> None:
        """Open the database and bring its tables up to date; blocks.  Raises UnusableJournal.

        ``fence``: checks, first in each transaction that writes, that this scheduler still leads.
        """
        limits = Limits(statement_s=settings.limit_s, file_bytes=settings.max_bytes)
        self.database = Database(settings.url, limits, fence)
        self._lock = _locked(self.database)
        try:
            self.header = prepare(self.database, settings.fleet)
        except BaseException:
            self._let_go()
            raise
        self.writer = Writer(self.database, WriterLimits(wait_s=settings.limit_s))
        log.info("journal: %s, fleet %s", self.database.name, self.header.fleet)

    def start(self) -> None:
        """Begin to write, on the running event loop."""
        self.writer.start()

    @property
    def trouble(self) -> str:
        """Why nothing can be written now, or what damage a read met, in words; empty while the journal works."""
        return self.writer.trouble or self.database.damage

    async def close(self) -> None:
        """Write what is pending, within a few seconds, and let go of the database."""
        await self.writer.close()
        self._let_go()

    def _let_go(self) -> None:
        self.database.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(database: Database) -> int | None:
    """Return the open lock file of a SQLite file; None for PostgreSQL.  Raises UnusableJournal.

    The lock is not on the file itself: closing it would end SQLite's own locks.
    """
    if not database.is_sqlite:
        return None
    path = f"{database.url.database}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnusableJournal(f"journal {database.name}: {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise UnusableJournal(f"journal {database.name}: another process uses it") from None
    return descriptor
