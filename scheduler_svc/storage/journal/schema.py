"""Makes the tables, brings older ones up to date, and refuses a database that is not this fleet's."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from scheduler_svc.storage.journal.database import Database
from scheduler_svc.storage.journal.errors import UnusableJournal, in_words
from scheduler_svc.storage.journal.tables import batches, decisions, detached, leadership, usage
from scheduler_svc.storage.journal.tables.header import HEADER
from scheduler_svc.storage.journal.tables.metadata import METADATA

__all__ = ["MIGRATIONS", "TABLES", "VERSION", "Header", "prepare"]

VERSION = 1
"""The version of the tables that this software reads and writes."""

MIGRATIONS: Mapping[int, Callable[[Connection], None]] = {}
"""What turns the tables of a version into those of the next, by the version it starts from."""

TABLES = (
    HEADER,
    decisions.INSTANCE_DECISIONS,
    decisions.FLEET_DECISIONS,
    detached.DETACHED_REQUESTS,
    detached.DETACHED_CONTENTS,
    detached.DETACHED_OUTPUT,
    detached.DETACHED_CHOICES,
    batches.FILES,
    batches.FILE_PIECES,
    batches.BATCHES,
    usage.USAGE,
    leadership.LEADERSHIP,
)
"""Every table; naming them here has their files imported before the tables are made."""

_CREATION_LOCK = 0x5361_6765  # PostgreSQL: two schedulers may start at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """Whose journal a database is."""

    fleet: str
    schema_version: int
    created_at: float  # seconds since 1970


def prepare(database: Database, fleet: str = "") -> Header:
    """Make the tables of an empty database, or bring older ones up to date; blocks.

    ``fleet``: the name that the database must have, and which a new one gets; empty: whatever it has, or a random one.

    Raises:
        UnusableJournal: the database cannot be used, or its tables are of a newer version or of another fleet.
    """
    try:
        with database.broken_off_late(), database.writing() as connection:
            return _prepared(connection, fleet, database)
    except SQLAlchemyError as error:
        raise UnusableJournal(f"journal {database.name}: {in_words(error)}") from error


def _prepared(connection: Connection, fleet: str, database: Database) -> Header:
    if not database.is_sqlite:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION_LOCK})
    found = inspect(connection).get_table_names()
    if HEADER.name not in found:
        return _create(connection, fleet, found, database)
    row = connection.execute(HEADER.select()).one()
    if fleet and row.fleet != fleet:
        raise UnusableJournal(
            f"journal {database.name}: it is the journal of fleet {row.fleet!r}, and journal.fleet is {fleet!r}"
        )
    _migrate(connection, row.schema_version, database)
    METADATA.create_all(connection)  # tables that came without a new version
    return Header(fleet=row.fleet, schema_version=VERSION, created_at=row.created_at)


def _create(connection: Connection, fleet: str, found: list[str], database: Database) -> Header:
    taken = sorted({table.name for table in TABLES} & set(found))
    if taken:
        raise UnusableJournal(f"journal {database.name}: it has a table {taken[0]!r} that is not a journal's")
    METADATA.create_all(connection, checkfirst=False)
    header = Header(fleet=fleet or secrets.token_hex(8), schema_version=VERSION, created_at=time.time())
    connection.execute(
        HEADER.insert().values(
            id=1,
            fleet=header.fleet,
            schema_version=VERSION,
            created_at=header.created_at,
        )
    )
    return header


def _migrate(connection: Connection, version: int, database: Database) -> None:
    if version > VERSION or any(each not in MIGRATIONS for each in range(version, VERSION)):
        raise UnusableJournal(
            f"journal {database.name}: its tables have version {version}, and this scheduler uses version {VERSION}"
        )
    for each in range(version, VERSION):
        MIGRATIONS[each](connection)
    if version != VERSION:
        connection.execute(HEADER.update().values(schema_version=VERSION))
