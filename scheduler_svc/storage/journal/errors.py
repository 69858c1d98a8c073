"""What goes wrong with a journal's database, in words."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

CAUSE_BYTES = 300
"""Most bytes of a database's own message in an error or a log line."""


_OF_A_STATEMENT = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE)
"""What SQLite answers to a statement that is wrong; it is an OperationalError as well."""


class UnusableJournal(Exception):
    """The journal cannot be used, and the scheduler must not start; says in one line which and why."""


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


def in_words(error: BaseException) -> str:
    """Return what is wrong, in one line without SQL or parameters."""
    cause: BaseException = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = " ".join(str(cause).split()) or type(cause).__name__
    if isinstance(error, SQLAlchemyError) and not isinstance(error, DBAPIError):
        text = text.split(" (Background on this error")[0]
    return text.encode()[:CAUSE_BYTES].decode(errors="ignore")
