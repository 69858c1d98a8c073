"""What operators decided, of single instances and of the fleet."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, String, Table, Text

from scheduler_svc.storage.journal.tables.metadata import METADATA, WALL_TIME

INSTANCE_DECISIONS = Table(
    "instance_decisions",
    METADATA,
    Column("instance_id", String(200), primary_key=True),
    Column("drained", Boolean, nullable=False),
    Column("drain_reason", Text, nullable=False),  # in the operator's words; empty if none were given
    Column("role", String(40), nullable=False),  # empty: the one its executor registers with
    Column("made_at", WALL_TIME, nullable=False),
)
"""A row for each instance that an operator drained or gave a role."""

FLEET_DECISIONS = Table(
    "fleet_decisions",
    METADATA,
    Column("name", String(40), primary_key=True),  # what is decided, such as "policy"
    Column("value", Text, nullable=False),  # JSON
    Column("made_at", WALL_TIME, nullable=False),
)
"""A row for each setting that an operator changed."""
