"""Which of several schedulers leads, and what the next one needs."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Integer, LargeBinary, String, Table, Text

from scheduler_svc.storage.journal.tables.metadata import METADATA, PRIVATE

LEADERSHIP = Table(
    "leadership",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("holder", String(200), nullable=False),  # random for each start of a scheduler
    Column("addresses", Text, nullable=False),  # at which it is reached, separated by commas
    Column("epoch", BigInteger, nullable=False),  # grows with every leader
    Column("lease_until", Double, nullable=False),  # seconds since 1970, by the database's clock
    Column("adoption_key", LargeBinary, nullable=False, info=PRIVATE),  # who has it can make up requests
    Column("instances", Text, nullable=False),  # JSON of storage.instances_record
)
"""One row, once a scheduler has led."""
