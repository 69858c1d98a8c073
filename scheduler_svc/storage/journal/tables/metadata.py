"""What all tables of the journal belong to."""

from __future__ import annotations

from sqlalchemy import BigInteger, Double, Integer, MetaData

METADATA = MetaData()
"""Every table of the journal.  ``schema.py`` imports the files that define them."""

WALL_TIME = Double
"""Seconds since 1970, by the scheduler's clock: exact to less than a microsecond."""

CONTENT = {"content": True}
"""``Column.info`` of what tenants sent and got: an export leaves it out."""

ROW_NUMBER = BigInteger().with_variant(Integer(), "sqlite")
"""A key that grows by one for each row: SQLite counts in its INTEGER keys alone."""

SECRET = "secret"
"""Marks, in its ``info``, a column that no export shows."""
