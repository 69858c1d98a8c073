"""Usage records in the journal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select

from scheduler_svc.control.journal.usage import (
    Position,
    UsageFilter,
    UsageGroup,
    UsageRecord,
    UsageRetention,
    UsageSum,
)
from scheduler_svc.storage.journal import postgresql, sqlite
from scheduler_svc.storage.journal.journal import Journal
from scheduler_svc.storage.journal.tables.usage import ROW_BYTES, USAGE

DELETED_AT_ONCE = 2_000
"""Records that one transaction deletes, so that others' writes are not held up for long."""

ADOPTED_LATER_S = 600.0
"""Longest time between a request's end under an earlier scheduler and the end of its adopted self."""

ARRIVAL_S = 5.0
"""By how much two schedulers may differ about when the same request arrived."""

DAY_S = 86_400

_FIELDS = UsageRecord._fields
_INSERTED = (*_FIELDS, "ended_day")

_COLUMNS: dict[UsageGroup, ColumnElement[Any]] = {
    UsageGroup.TENANT: USAGE.c.tenant,
    UsageGroup.MODEL: USAGE.c.model,
    UsageGroup.PRIORITY: USAGE.c.priority,
    UsageGroup.END: USAGE.c.end,
    UsageGroup.DAY: USAGE.c.ended_day,
}


class JournalUsageStore:
    """Implements ``control.journal.usage.UsageStore``."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._insert = sqlite.insert_rows if journal.database.is_sqlite else postgresql.insert_rows

    async def add(self, records: Sequence[UsageRecord]) -> None:
        """Keep records.  Raises JournalUnavailable."""
        rows = [(*each, int(each.ended_at // DAY_S)) for each in records]
        adopted = [each for each in records if each.adopted]
        insert = self._insert

        def work(connection: Connection) -> None:
            for each in adopted:
                connection.execute(USAGE.delete().where(*_same_request(each)))
            insert(connection, USAGE.name, _INSERTED, rows)

        await self._journal.writer.write(work, ROW_BYTES * len(rows))

    async def page(
        self, wanted: UsageFilter, after: Position | None, most: int
    ) -> tuple[Sequence[UsageRecord], Position | None]:
        """Return the next records, the oldest first, and where they end; None: there are no more."""
        query = select(USAGE).where(*_conditions(wanted)).order_by(USAGE.c.ended_at, USAGE.c.id).limit(most)
        if after is not None:
            at, number = after
            later = and_(USAGE.c.ended_at == at, USAGE.c.id > number)
            query = query.where(or_(USAGE.c.ended_at > at, later), USAGE.c.ended_at >= at)
        rows = await self._journal.database.read(lambda connection: connection.execute(query).all())
        end = (rows[-1].ended_at, rows[-1].id) if len(rows) == most else None
        return [_record(row) for row in rows], end

    async def sums(self, wanted: UsageFilter, groups: Sequence[UsageGroup], most: int) -> Sequence[UsageSum]:
        """Return sums by groups, sorted by them; at most ``most + 1``."""
        columns = [_COLUMNS[each] for each in groups]
        figures = [func.count(), *(func.coalesce(func.sum(USAGE.c[name]), 0) for name in _SUMMED)]
        query = select(*columns, *figures).where(*_conditions(wanted)).group_by(*columns).order_by(*columns)
        rows = await self._journal.database.read(lambda connection: connection.execute(query.limit(most + 1)).all())
        return [_sum(row, groups) for row in rows]

    async def retain(self, retention: UsageRetention, now: float) -> int:
        """Delete records that need not be kept; return how many."""
        first, until = await self._journal.database.read(
            lambda connection: _to_delete(connection, now - retention.keep_s, retention.max_bytes // ROW_BYTES)
        )
        deleted = 0
        for start in range(first, until, DELETED_AT_ONCE):
            bound = min(start + DELETED_AT_ONCE, until)
            deleted += await self._journal.writer.write(partial(_delete, before=bound), frees=True)
        return deleted


def _same_request(record: UsageRecord) -> list[ColumnElement[bool]]:
    """Return what holds for the record of the same request that an earlier scheduler may have written."""
    return [
        USAGE.c.ended_at > record.ended_at - ADOPTED_LATER_S,
        USAGE.c.tenant == record.tenant,
        USAGE.c.request_id == record.request_id,
        USAGE.c.arrived_at.between(record.arrived_at - ARRIVAL_S, record.arrived_at + ARRIVAL_S),
    ]


def _delete(connection: Connection, before: int) -> int:
    """Delete the rows with smaller numbers; return how many."""
    return connection.execute(USAGE.delete().where(USAGE.c.id < before)).rowcount


_SUMMED = ("prompt_tokens", "cached_prompt_tokens", "output_tokens", "attempts", "cost")


def _conditions(wanted: UsageFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        found.append(USAGE.c.ended_at >= wanted.since)
    if wanted.until is not None:
        found.append(USAGE.c.ended_at < wanted.until)
    if wanted.tenants:
        found.append(USAGE.c.tenant.in_(wanted.tenants))
    if wanted.models:
        found.append(USAGE.c.model.in_(wanted.models))
    return found


def _to_delete(connection: Connection, before: float, most: int) -> tuple[int, int]:
    """Return the numbers of the first row that goes, and of the first that stays; rows are numbered as they ended."""
    first, last = connection.execute(select(func.min(USAGE.c.id), func.max(USAGE.c.id))).one()
    if first is None:
        return 0, 0
    old = connection.execute(select(func.max(USAGE.c.id)).where(USAGE.c.ended_at < before)).scalar_one()
    return first, max(0 if old is None else old + 1, last + 1 - most, first)


def _record(row: Row[Any]) -> UsageRecord:
    return UsageRecord(**{name: getattr(row, name) for name in _FIELDS})


def _sum(row: Row[Any], groups: Sequence[UsageGroup]) -> UsageSum:
    requests, prompt, cached, output, attempts, cost = row[len(groups) :]
    return UsageSum(
        groups=tuple(_in_words(group, value) for group, value in zip(groups, row, strict=False)),
        requests=requests,
        prompt_tokens=int(prompt),
        cached_prompt_tokens=int(cached),
        output_tokens=int(output),
        attempts=int(attempts),
        cost=float(cost),
    )


def _in_words(group: UsageGroup, value: Any) -> str:
    if group is UsageGroup.DAY:
        return datetime.fromtimestamp(value * DAY_S, UTC).date().isoformat()
    return str(value)
