"""SQLite as the journal's database: one file, write-ahead logging, every commit on the disk."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from scheduler_svc.storage.journal.errors import UnusableJournal

WRITES = "sage_writes"
"""The execution option of a connection that may write: its transaction takes the write lock at its begin."""

PAGE_BYTES = 4_096
VACUUM_PAGES = 1_000  # that a vacuum moves in one transaction
ROWS_AT_ONCE = (
    256,
    32,
    4,
    1,
)
"""Rows of one INSERT, the largest number that fits first: so few statements stay prepared."""

OPCODES = 20_000  # of SQLite's virtual machine between two looks at the clock: about a millisecond


def engine(path: str, busy_s: float, file_bytes: int) -> Engine:
    """Return the engine of a file, which is made with mode 0600 if it is not there.  Raises UnusableJournal."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise UnusableJournal(f"journal.url {path}: {error.strerror}") from error
    made = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=4,
        pool_timeout=busy_s,
        connect_args={"timeout": busy_s, "check_same_thread": False},
    )

    @event.listens_for(made, "connect")
    def prepare(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None  # transactions begin where `begin` below says
        for pragma in (
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            "synchronous=FULL",
            "secure_delete=OFF",
            f"max_page_count={max(file_bytes // PAGE_BYTES, 64)}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(made, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return made


@contextmanager
def interrupted(connection: Connection, too_late: Callable[[], bool]) -> Iterator[None]:
    """End the statements of a connection with an error once ``too_late`` says so."""
    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(too_late, OPCODES)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


def insert_rows(connection: Connection, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Insert rows, many in one statement.

    Every step of SQLite's releases Python's interpreter lock; to get it back from a busy event loop takes up to 5 ms.
    """
    left = len(rows)
    names, row = ", ".join(f'"{each}"' for each in columns), f"({', '.join('?' * len(columns))})"
    for count in ROWS_AT_ONCE:
        while left >= count:
            part = rows[len(rows) - left :][:count]
            statement = f"INSERT INTO {table} ({names}) VALUES {', '.join([row] * count)}"
            connection.exec_driver_sql(statement, tuple(chain.from_iterable(part)))
            left -= count


def size(connection: Connection) -> int:
    """Return the bytes of the file that are in use."""
    pages, free = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()) for name in ("page_count", "freelist_count")
    )
    return (pages - free) * PAGE_BYTES


def file_bytes(connection: Connection) -> int:
    """Return the bytes of the file, those included that are not in use."""
    return int(connection.exec_driver_sql("PRAGMA page_count").scalar_one()) * PAGE_BYTES


def vacuum_some(connection: Connection) -> int:
    """Take some unused pages off the file's end, in a transaction that writes; return how many.

    None are taken off a file that was made without ``auto_vacuum``, such as one restored from a dump.
    """
    driver: Any = connection.connection.driver_connection
    before = driver.execute("PRAGMA freelist_count").fetchone()[0]
    driver.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
    return int(before - driver.execute("PRAGMA freelist_count").fetchone()[0])


def checkpoint(made: Engine, tables: Sequence[str]) -> None:
    """Move what is in the write-ahead log into the file, and empty the log."""
    raw = made.raw_connection()
    try:
        driver: Any = raw.driver_connection
        driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        raw.close()
