"""Usage records as AdminService shows them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from sage.controlplane.v1 import admin_pb2
from sage_wire import durations
from scheduler_svc.control.journal.usage import (
    Position,
    UsageFilter,
    UsageGroup,
    UsageRecord,
    UsageStore,
    UsageSum,
)
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest, JournalUnavailable, LimitReached
from scheduler_svc.domain.request import Priority
from scheduler_svc.transport.enums import PRIORITY_TO_WIRE

PAGE_RECORDS = 500
GROUPS_LIMIT = 10_000
NAMES_LIMIT = 1_000  # tenants or models in a filter

GROUP_FROM_WIRE: dict[admin_pb2.UsageGroup.ValueType, UsageGroup] = {
    admin_pb2.USAGE_GROUP_TENANT: UsageGroup.TENANT,
    admin_pb2.USAGE_GROUP_MODEL: UsageGroup.MODEL,
    admin_pb2.USAGE_GROUP_PRIORITY: UsageGroup.PRIORITY,
    admin_pb2.USAGE_GROUP_END: UsageGroup.END,
    admin_pb2.USAGE_GROUP_DAY: UsageGroup.DAY,
}


class UsageAnswers:
    """Answers ListUsage and SumUsage."""

    def __init__(self, store: UsageStore | None) -> None:
        """``store`` is None without a journal."""
        self._store = store

    async def pages(self, request: admin_pb2.ListUsageRequest) -> AsyncGenerator[admin_pb2.ListUsageResponse, None]:
        """Give the records in pages.  Raises InvalidRequest, JournalUnavailable."""
        wanted, store = _filter(request.filter), self._needed()
        left = request.limit or None
        after: Position | None = None
        while left is None or left > 0:
            most = PAGE_RECORDS if left is None else min(left, PAGE_RECORDS)
            records, after = await store.page(wanted, after, most)
            if records:
                yield admin_pb2.ListUsageResponse(records=[_record(each) for each in records])
            if after is None:
                return
            left = None if left is None else left - len(records)

    async def sums(self, request: admin_pb2.SumUsageRequest) -> admin_pb2.SumUsageResponse:
        """Return sums by the groups of the request.  Raises InvalidRequest, LimitReached, JournalUnavailable."""
        wanted, groups, store = _filter(request.filter), _groups(request), self._needed()
        found = await store.sums(wanted, groups, GROUPS_LIMIT)
        if len(found) > GROUPS_LIMIT:
            raise LimitReached("groups of usage records", GROUPS_LIMIT, f"there are more than {GROUPS_LIMIT} groups")
        return admin_pb2.SumUsageResponse(sums=[_sum(each) for each in found])

    def _needed(self) -> UsageStore:
        if self._store is None:
            raise JournalUnavailable("there is none: the scheduler has no journal.url and no state_dir")
        return self._store


def _filter(wire: admin_pb2.UsageFilter) -> UsageFilter:
    since = _seconds(wire.since, "filter.since") if wire.HasField("since") else None
    until = _seconds(wire.until, "filter.until") if wire.HasField("until") else None
    if since is not None and until is not None and since >= until:
        problem = "it is not after filter.since"
        raise InvalidRequest([FieldViolation(field="filter.until", description=problem)])
    for name, values in (("tenants", wire.tenants), ("models", wire.models)):
        if len(values) > NAMES_LIMIT:
            problem = f"has {len(values)} names; the limit is {NAMES_LIMIT}"
            raise InvalidRequest([FieldViolation(field=f"filter.{name}", description=problem)])
        if not all(value.isprintable() for value in values):  # PostgreSQL takes no NUL
            problem = "has a name with characters that cannot be printed"
            raise InvalidRequest([FieldViolation(field=f"filter.{name}", description=problem)])
    return UsageFilter(since=since, until=until, tenants=tuple(wire.tenants), models=tuple(wire.models))


def _seconds(wire: Timestamp, field: str) -> float:
    """Return seconds since 1970.  Raises InvalidRequest."""
    try:
        return wire.ToMicroseconds() / 1e6
    except ValueError as error:
        raise InvalidRequest([FieldViolation(field=field, description=f"is no time: {error}")]) from error


def _groups(request: admin_pb2.SumUsageRequest) -> list[UsageGroup]:
    found: list[UsageGroup] = []
    for each in request.group_by:
        group = GROUP_FROM_WIRE.get(each)
        if group is None or group in found:
            problem = f"{each} is not a group" if group is None else f"{group.value} is named twice"
            raise InvalidRequest([FieldViolation(field="group_by", description=problem)])
        found.append(group)
    return found


def _record(record: UsageRecord) -> admin_pb2.UsageRecord:
    wire = admin_pb2.UsageRecord(
        tenant=record.tenant,
        request_id=record.request_id,
        model=record.model,
        adapter=record.adapter,
        priority=PRIORITY_TO_WIRE[Priority[record.priority.upper()]],
        detached=record.detached,
        prompt_tokens=record.prompt_tokens,
        cached_prompt_tokens=record.cached_prompt_tokens,
        output_tokens=record.output_tokens,
        arrived_at=timestamp(record.arrived_at),
        ended_at=timestamp(record.ended_at),
        attempts=record.attempts,
        cost=record.cost,
        end=record.end,
        reason=record.reason,
        adopted=record.adopted,
    )
    if record.waited_s is not None:
        wire.waited.CopyFrom(durations.to_wire(record.waited_s))
    if record.first_token_s is not None:
        wire.first_token.CopyFrom(durations.to_wire(record.first_token_s))
    return wire


def _sum(found: UsageSum) -> admin_pb2.UsageSum:
    return admin_pb2.UsageSum(
        groups=found.groups,
        requests=found.requests,
        prompt_tokens=found.prompt_tokens,
        cached_prompt_tokens=found.cached_prompt_tokens,
        output_tokens=found.output_tokens,
        attempts=found.attempts,
        cost=found.cost,
    )


def timestamp(at: float) -> Timestamp:
    """Convert seconds since 1970."""
    wire = Timestamp()
    wire.FromDatetime(datetime.fromtimestamp(at, UTC))
    return wire
