"""The row that says whose journal a database is."""

from __future__ import annotations

from sqlalchemy import Column, Integer, LargeBinary, String, Table

from scheduler_svc.storage.journal.tables.metadata import METADATA, WALL_TIME

HEADER = Table(
    "journal_header",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("fleet", String(200), nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("created_at", WALL_TIME, nullable=False),
    Column("probe", LargeBinary),  # written and emptied again, to find out whether the database takes data again
)
"""One row."""
