"""Batches, and the files that they read and write."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, LargeBinary, String, Table, Text

from scheduler_svc.storage.journal.tables.metadata import METADATA, PRIVATE, WALL_TIME

FILES = Table(
    "files",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("file_id", Text, primary_key=True),
    Column("filename", Text, nullable=False, info=PRIVATE),
    Column("purpose", String(20), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the content; empty for one that a batch writes
    Column("created_at", WALL_TIME, nullable=False),
    Column("keep_until", WALL_TIME),  # NULL: a batch writes it
)
"""A row for each file whose upload ended, and for each that a batch writes."""

FILE_PIECES = Table(
    "file_pieces",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("file_id", Text, primary_key=True),
    Column("first_byte", BigInteger, primary_key=True, autoincrement=False),  # position in the file
    Column("content", LargeBinary, nullable=False, info=PRIVATE),
)
"""A row for each piece of a file's content; also of files whose upload has not ended."""

BATCHES = Table(
    "batches",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("batch_id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("input_file_id", Text, nullable=False),
    Column("endpoint", String(40), nullable=False),
    Column("priority", String(20), nullable=False),
    Column("metadata", Text, nullable=False, info=PRIVATE),  # JSON
    Column("created_at", WALL_TIME, nullable=False),
    Column("expires_at", WALL_TIME, nullable=False),
    Column("keep_s", Double, nullable=False),
    Column("state", String(20), nullable=False),
    Column("ended", Boolean, nullable=False),
    Column("started_at", WALL_TIME),
    Column("cancelling_at", WALL_TIME),
    Column("ended_at", WALL_TIME),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("errors", Text, nullable=False, info=PRIVATE),  # JSON
    Column("lines_done", LargeBinary, nullable=False),  # a bit for each line
)
"""A row for each batch."""
