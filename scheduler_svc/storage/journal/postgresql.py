"""PostgreSQL as the journal's database."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, func, select

from scheduler_svc.storage.journal.errors import UnusableJournal
from scheduler_svc.storage.journal.tables.metadata import METADATA

APPLICATION = "sage-scheduler"
"""What the server's list of connections calls ours."""

VACUUM_S = 600
"""Longest vacuum of one table in seconds."""


def engine(url: URL, limit_s: float) -> Engine:
    """Return the engine of a database; ``limit_s`` bounds connecting, and each statement.  Raises UnusableJournal."""
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        raise UnusableJournal(
            "journal.url: psycopg is not installed: pip install 'sage-control-plane[postgres]'"
        ) from None
    return create_engine(
        url,
        pool_size=4,
        max_overflow=0,
        pool_timeout=limit_s,
        connect_args=arguments(limit_s),
    )


def arguments(limit_s: float) -> dict[str, str | int]:
    """Return the arguments of a connection: no wait for the server is longer than about ``limit_s``."""
    limit_ms = math.ceil(limit_s * 1_000)
    return {
        "application_name": APPLICATION,
        "connect_timeout": max(2, math.ceil(limit_s)),  # libpq takes whole seconds, at least 2
        "tcp_user_timeout": limit_ms,
        "keepalives_idle": max(1, math.ceil(limit_s)),
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "options": f"-c statement_timeout={limit_ms} -c lock_timeout={limit_ms}"
        f" -c idle_in_transaction_session_timeout={10 * limit_ms} -c synchronous_commit=on",
    }


def insert_rows(connection: Connection, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Insert rows by COPY, which takes a tenth of the time of as many INSERTs."""
    driver: Any = connection.connection.driver_connection
    names = ", ".join(f'"{each}"' for each in columns)
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def size(connection: Connection) -> int:
    """Return the bytes of the journal's tables and their indexes."""
    sizes = [func.pg_total_relation_size(func.to_regclass(table.name)) for table in METADATA.sorted_tables]
    return sum(size or 0 for size in connection.execute(select(*sizes)).one())


def vacuum(made: Engine, tables: Sequence[str]) -> None:
    """Have the server reuse what deleted rows took."""
    with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"SET statement_timeout = '{VACUUM_S}s'")
        try:
            for table in tables:
                connection.exec_driver_sql(f"VACUUM {table}")
        finally:
            connection.invalidate()  # the next user gets a connection with the usual limit
