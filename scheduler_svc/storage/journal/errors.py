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

_UNDECODABLE = "Could not decode to UTF-8"
"""Python's message where a text in a SQLite file is none; the text follows it.  Such an error has no code of SQLite."""


class UnusableJournal(Exception):
    """The journal cannot be used, and the scheduler must not start; says in one line which and why."""


@contextmanager
def read_at_start(what: str) -> Iterator[None]:
    """Raise UnusableJournal where ``what`` cannot be read inside the block, or holds values that make no sense."""
    try:
        yield
    except JournalUnavailable as error:
        raise UnusableJournal(f"journal: {what} cannot be read: {error.why}") from error
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        # of a row, such as a state that does not exist, or JSON that is no object
        raise UnusableJournal(
            f"journal: {what} cannot be read: a row makes no sense: {error}: restore a backup, or move the file away"
        ) from error


def is_lost(error: BaseException) -> bool:
    """Return whether the connection broke: the next one may work."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def is_trouble(error: BaseException) -> bool:
    """Return whether an error is the database's, and not that of one statement."""
    if isinstance(error, DBAPIError):
        if (code := _code(error)) is not None:
            return code not in _OF_A_STATEMENT
        if error.connection_invalidated:
            return True
    return isinstance(error, OperationalError | InterfaceError | InternalError | PoolTimeout | OSError)


def is_damage(error: BaseException) -> bool:
    """Return whether a SQLite file is damaged: no later try will do better."""
    return _is_undecodable(error) or _code(error) in _OF_DAMAGE


def _is_undecodable(error: BaseException) -> bool:
    return (
        isinstance(error, DBAPIError)
        and isinstance(error.orig, sqlite3.Error)
        and str(error.orig).startswith(_UNDECODABLE)
    )


def _code(error: BaseException) -> int | None:
    """Return SQLite's code; None for an error of Python's own module, such as that the file is closed."""
    code = getattr(error.orig, "sqlite_errorcode", None) if isinstance(error, DBAPIError) else None
    return None if code is None else int(code) & 0xFF


def in_words(error: BaseException) -> str:
    """Return what is wrong, in one line without SQL or parameters."""
    cause: BaseException = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = " ".join(str(cause).split()) or type(cause).__name__
    if isinstance(error, SQLAlchemyError) and not isinstance(error, DBAPIError):
        text = text.split(" (Background on this error")[0]
    if _is_undecodable(error):
        text = text.split(" with text ")[0]  # the text may be of a prompt
    text = text.encode(errors="replace")[:CAUSE_BYTES].decode(errors="ignore")
    return f"the file is damaged ({text}): restore a backup, or move the file away" if is_damage(error) else text
