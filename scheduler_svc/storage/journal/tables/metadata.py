"""What all tables of the journal belong to."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, Integer, MetaData

METADATA = MetaData()
"""Every table of the journal.  ``schema.py`` imports the files that define them."""

WALL_TIME = Double
"""Seconds since 1970, by the scheduler's clock: exact to less than a microsecond."""

PRIVATE = {"private": True}
"""``Column.info`` of what no export shows: what tenants sent and got, and keys."""

ROW_NUMBER = BigInteger().with_variant(Integer(), "sqlite")
"""A key that grows by one for each row: SQLite counts in its INTEGER keys alone."""
