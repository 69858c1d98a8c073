"""What goes wrong with a journal's database, in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from scheduler_svc.domain.errors import JournalUnavailable

CAUSE_BYTES = 300
"""Most bytes of a database's own message in an error or a log line."""


_OF_A_STATEMENT = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE)
"""What SQLite answers to a statement that is wrong; it is an OperationalError as well."""


_OF_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""What SQLite answers where a file holds what it did not write."""


class UnusableJournal(Exception):
    """The journal cannot be used, and the scheduler must not start; says in one line which and why."""


@contextmanager
def read_at_start(what: str) -> Iterator[None]:
    """Raise UnusableJournal where ``what`` cannot be read inside the block, or holds values that make no sense."""
    try:
        yield
    except JournalUnavailable as error:
        raise UnusableJournal(f"journal: {what} cannot be read: {error.why}") from error
    except (ValueError, TypeError, KeyError) as error:  # of a row, such as a state that does not exist
        raise UnusableJournal(
            f"journal: {what} cannot be read: a row makes no sense: {error}: restore a backup, or move the file away"
        ) from error


def is_lost(error: BaseException) -> bool:
    """Return whether the connection broke: the next one may work."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def is_trouble(error: BaseException) -> bool:
    """Return whether an error is the database's, and not that of one statement."""
    if isinstance(error, DBAPIError):
        if isinstance(error.orig, sqlite3.Error):
            return error.orig.sqlite_errorcode & 0xFF not in _OF_A_STATEMENT
        if error.connection_invalidated:
            return True
    return isinstance(error, OperationalError | InterfaceError | InternalError | PoolTimeout | OSError)


def is_damage(error: BaseException) -> bool:
    """Return whether a SQLite file is damaged: no later try will do better."""
    return (
        isinstance(error, DBAPIError)
        and isinstance(error.orig, sqlite3.Error)
        and error.orig.sqlite_errorcode & 0xFF in _OF_DAMAGE
    )


def in_words(error: BaseException) -> str:
    """Return what is wrong, in one line without SQL or parameters."""
    cause: BaseException = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = " ".join(str(cause).split()) or type(cause).__name__
    if isinstance(error, SQLAlchemyError) and not isinstance(error, DBAPIError):
        text = text.split(" (Background on this error")[0]
    text = text.encode()[:CAUSE_BYTES].decode(errors="ignore")
    return f"the file is damaged ({text}): restore a backup, or move the file away" if is_damage(error) else text
