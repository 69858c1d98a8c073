"""What requests used."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, String, Table, Text

from scheduler_svc.storage.journal.tables.metadata import METADATA, ROW_NUMBER, WALL_TIME

USAGE = Table(
    "usage_records",
    METADATA,
    Column("id", ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("adapter", Text, nullable=False),
    Column("priority", String(20), nullable=False),
    Column("detached", Boolean, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_prompt_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("arrived_at", WALL_TIME, nullable=False),
    Column("ended_at", WALL_TIME, nullable=False),
    Column("ended_day", Integer, nullable=False),  # days since 1970, in UTC
    Column("waited_s", Double),
    Column("first_token_s", Double),
    Column("attempts", Integer, nullable=False),
    Column("cost", Double, nullable=False),
    Column("end", String(20), nullable=False),
    Column("reason", String(40), nullable=False),
    Column("adopted", Boolean, nullable=False),
)
"""A row for each request that ended."""

Index("usage_records_by_time", USAGE.c.ended_at, USAGE.c.id)

ROW_BYTES = 320
"""What a row takes on the disk with its places in the indexes, as measured with ids of 36 bytes."""
