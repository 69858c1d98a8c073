"""Looks at the journal and after it: status, unused space, export."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Collection, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, Table, func, select, tuple_

from scheduler_svc.control.journal.maintenance import JournalFigures, JournalStatus
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest, JournalUnavailable
from scheduler_svc.storage.journal import sqlite
from scheduler_svc.storage.journal.journal import Journal
from scheduler_svc.storage.journal.schema import TABLES
from scheduler_svc.storage.journal.tables.metadata import PRIVATE

PAGE_ROWS = 100
"""Rows that an export reads at once."""


STATUS_S = 3.0
"""Seconds that a status may take to read: an operator who asks why the journal hangs needs an answer."""


class Maintenance:
    """Implements ``control.journal.maintenance.JournalMaintenance``."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._compacting = asyncio.Lock()

    @property
    def trouble(self) -> str:
        """Why nothing can be written now, in words; empty while the journal works."""
        return self._journal.trouble

    @property
    def figures(self) -> JournalFigures:
        """What it did since the start."""
        done = self._journal.writer.figures
        return JournalFigures(
            writes=done.writes,
            commits=done.commits,
            refused=done.refused,
            failed=done.failed,
            waiting=done.waiting,
            commit_s=done.commit_s,
        )

    async def status(self) -> JournalStatus:
        """Return what the journal is and holds; of one that cannot be read, what is known all the same."""
        database, header, trouble = self._journal.database, self._journal.header, self.trouble
        size, rows = 0, dict[str, int]()
        try:
            size, rows = await database.read(
                lambda connection: (database.size(connection), _rows(connection)), within_s=STATUS_S
            )
        except JournalUnavailable as error:
            trouble = trouble or error.why
        return JournalStatus(
            database=database.name,
            fleet=header.fleet,
            schema_version=header.schema_version,
            created_at=header.created_at,
            trouble=trouble,
            bytes=size,
            limit_bytes=database.limit_bytes,
            rows=rows,
        )

    async def compact(self) -> tuple[int, int]:
        """Give unused space back; return the bytes before and after.  Raises JournalUnavailable."""
        database = self._journal.database
        async with self._compacting:
            before = await database.read(database.size_on_disk)
            if database.is_sqlite:
                await self._vacuum_file()
            await database.vacuum([table.name for table in TABLES])
            return before, await database.read(database.size_on_disk)

    async def export(self, tables: Collection[str]) -> AsyncIterator[Sequence[str]]:
        """Give the rows of these tables, or of all, in pages of JSON lines.

        Without secrets, and without what tenants sent and got.

        Raises JournalUnavailable, and InvalidRequest for a table that is not there.
        """
        names = {table.name for table in TABLES}
        if unknown := sorted(set(tables) - names):
            problem = f"{unknown[0]!r} is not a table; there are: {', '.join(sorted(names))}"
            raise InvalidRequest([FieldViolation(field="tables", description=problem)])
        for table in TABLES:
            if not tables or table.name in tables:
                async for page in self._pages(table):
                    yield page

    async def _pages(self, table: Table) -> AsyncIterator[Sequence[str]]:
        keys = list(table.primary_key.columns)
        query = select(*_exported(table)).order_by(*keys).limit(PAGE_ROWS)
        after: tuple[Any, ...] | None = None
        while True:
            part = query if after is None else query.where(tuple_(*keys) > after)
            rows = await self._journal.database.read(partial(_page, part))
            if rows:
                yield [_line(table, row) for row in rows]
            if len(rows) < PAGE_ROWS:
                return
            after = tuple(getattr(rows[-1], key.name) for key in keys)

    async def _vacuum_file(self) -> None:
        """Shrink a SQLite file, in transactions of the writer: beside them, each would keep it locked for the other."""
        while await self._journal.writer.write(sqlite.vacuum_some, frees=True) > 0:
            pass


def _rows(connection: Connection) -> dict[str, int]:
    return {table.name: _count(connection, table) for table in TABLES}


def _count(connection: Connection, table: Table) -> int:
    """Count rows; where they are numbered, by the numbers: counting millions takes seconds."""
    if "id" not in table.c or not table.c.id.autoincrement:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
    first, last = connection.execute(select(func.min(table.c.id), func.max(table.c.id))).one()
    return 0 if first is None else int(last - first + 1)


def _exported(table: Table) -> list[Column[Any]]:
    return [column for column in table.columns if not PRIVATE.items() <= column.info.items()]


def _page(query: Select[Any], connection: Connection) -> Sequence[Row[Any]]:
    return connection.execute(query).all()


def _line(table: Table, row: Row[Any]) -> str:
    return json.dumps({"table": table.name, **row._asdict()}, default=_plain)


def _plain(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes | memoryview) else str(value)
