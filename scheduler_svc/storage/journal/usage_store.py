"""Usage records in the journal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select

from scheduler_svc.control.journal.usage import (
    ADOPTED_LATER_S,
    ARRIVAL_S,
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

    async def add(self, records: Sequence[UsageRecord], *, maybe_kept: bool = False) -> None:
        """Keep records, those that an earlier call may have kept once.  Raises JournalUnavailable."""
        adopted = [each for each in records if each.adopted]
        insert = self._insert

        def work(connection: Connection) -> None:
            if maybe_kept:
                _delete_earlier(connection, records, 0.0, _is_same_record)
            if adopted:
                _delete_earlier(connection, adopted, ADOPTED_LATER_S, _is_same_request)
            insert(connection, USAGE.name, _INSERTED, [(*each, int(each.ended_at // DAY_S)) for each in records])

        await self._journal.writer.write(work, ROW_BYTES * len(records))

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
        """Delete records that need not be kept, also while the journal is full; return how many."""
        most = retention.max_bytes // ROW_BYTES
        last = await self._journal.database.read(lambda c: c.execute(select(func.max(USAGE.c.id))).scalar_one())
        deleted = await self._delete(USAGE.c.ended_at < now - retention.keep_s)
        return deleted if last is None else deleted + await self._delete(USAGE.c.id <= last - most)

    async def _delete(self, which: ColumnElement[bool]) -> int:
        """Delete rows, DELETED_AT_ONCE in a transaction; return how many."""
        if not await self._journal.database.read(partial(_is_any, which)):
            return 0  # the usual case takes no transaction
        deleted = 0
        while True:
            some = await self._journal.writer.write(partial(_delete_some, which), frees=True)
            deleted += some
            if some < DELETED_AT_ONCE:
                return deleted


def _delete_earlier(
    connection: Connection,
    records: Sequence[UsageRecord],
    earlier_s: float,
    is_same: Callable[[Any, UsageRecord], bool],
) -> None:
    """Delete the rows that these records replace, which ended at most ``earlier_s`` before them.

    ``is_same`` is given a row with ``id``, ``tenant``, ``request_id``, ``arrived_at`` and ``ended_at``.
    One query finds those of all records: one for each would read the same part of the table over and over.
    """
    by_key = defaultdict[tuple[str, str], list[UsageRecord]](list)  # an id may be used again
    for each in records:
        by_key[each.tenant, each.request_id].append(each)
    columns = (USAGE.c.id, USAGE.c.tenant, USAGE.c.request_id, USAGE.c.arrived_at, USAGE.c.ended_at)
    found = connection.execute(
        select(*columns).where(
            USAGE.c.ended_at >= min(each.ended_at for each in records) - earlier_s,
            USAGE.c.request_id.in_({each.request_id for each in records}),
        )
    )
    replaced = [row.id for row in found if any(is_same(row, each) for each in by_key[row.tenant, row.request_id])]
    if replaced:
        connection.execute(USAGE.delete().where(USAGE.c.id.in_(replaced)))


def _is_same_record(row: Any, record: UsageRecord) -> bool:
    return bool(row.ended_at == record.ended_at)


def _is_same_request(row: Any, record: UsageRecord) -> bool:
    """Return whether an earlier scheduler may have written the row about the same request."""
    recent = row.ended_at > record.ended_at - ADOPTED_LATER_S
    return bool(recent and abs(row.arrived_at - record.arrived_at) <= ARRIVAL_S)


def _is_any(which: ColumnElement[bool], connection: Connection) -> bool:
    return connection.execute(select(USAGE.c.id).where(which).limit(1)).first() is not None


def _delete_some(which: ColumnElement[bool], connection: Connection) -> int:
    some = select(USAGE.c.id).where(which).limit(DELETED_AT_ONCE)
    return connection.execute(USAGE.delete().where(USAGE.c.id.in_(some))).rowcount


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
