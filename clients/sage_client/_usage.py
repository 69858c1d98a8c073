"""Values of usage records, and their messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from sage.controlplane.v1 import admin_pb2
from sage_client._decode import seconds
from sage_client._enums import Priority
from sage_client._plain import Plain


class UsageGroup(Enum):
    """What usage is summed by."""

    TENANT = "tenant"
    MODEL = "model"
    PRIORITY = "priority"
    END = "end"
    DAY = "day"  # on which requests ended, in UTC


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageRecord(Plain):
    """What a request used.  It has no prompt and no output."""

    tenant: str
    request_id: str
    model: str
    adapter: str  # empty: none
    priority: Priority
    detached: bool
    prompt_tokens: int
    cached_prompt_tokens: int  # of those, found in a prefix cache
    output_tokens: int
    arrived_at: datetime  # in UTC, by the scheduler's clock
    ended_at: datetime  # in UTC, by the scheduler's clock
    waited_s: float | None  # arrival to the first placement; None if it was never placed
    first_token_s: float | None  # arrival to the first token; None if there was none
    attempts: int
    cost: float  # in the currency of the instances' prices
    end: str  # "finished" | "failed" | "cancelled" | "expired"
    reason: str  # "stop", "length", or why it ended otherwise
    adopted: bool = False  # it was begun under an earlier scheduler


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageSum(Plain):
    """Sums over the requests of one group."""

    groups: tuple[str, ...]  # a value for each group that was asked for
    requests: int
    prompt_tokens: int
    cached_prompt_tokens: int
    output_tokens: int
    attempts: int
    cost: float  # in the currency of the instances' prices


def usage_filter(
    since: datetime | None, until: datetime | None, tenants: Iterable[str], models: Iterable[str]
) -> admin_pb2.UsageFilter:
    """Encode which requests are meant.  A time without a zone is local time."""
    message = admin_pb2.UsageFilter(tenants=tenants, models=models)
    if since is not None:
        message.since.FromDatetime(since.astimezone(UTC))
    if until is not None:
        message.until.FromDatetime(until.astimezone(UTC))
    return message


def encode_groups(groups: Sequence[UsageGroup | str]) -> list[admin_pb2.UsageGroup.ValueType]:
    """Encode groups.

    Raises:
        ValueError: a group does not exist; the message lists those that do.
    """
    try:
        return [admin_pb2.UsageGroup.Value(f"USAGE_GROUP_{UsageGroup(each).name}") for each in groups]
    except ValueError as error:
        raise ValueError(f"{error}; known groups: {', '.join(each.value for each in UsageGroup)}") from None


def usage_record(m: admin_pb2.UsageRecord) -> UsageRecord:
    """Decode a usage record."""
    return UsageRecord(
        tenant=m.tenant,
        request_id=m.request_id,
        model=m.model,
        adapter=m.adapter,
        priority=Priority(m.priority or Priority.NORMAL),
        detached=m.detached,
        prompt_tokens=m.prompt_tokens,
        cached_prompt_tokens=m.cached_prompt_tokens,
        output_tokens=m.output_tokens,
        arrived_at=m.arrived_at.ToDatetime(UTC),
        ended_at=m.ended_at.ToDatetime(UTC),
        waited_s=seconds(m.waited) if m.HasField("waited") else None,
        first_token_s=seconds(m.first_token) if m.HasField("first_token") else None,
        attempts=m.attempts,
        cost=m.cost,
        end=m.end,
        reason=m.reason,
        adopted=m.adopted,
    )


def usage_sum(m: admin_pb2.UsageSum) -> UsageSum:
    """Decode sums over requests."""
    return UsageSum(
        groups=tuple(m.groups),
        requests=m.requests,
        prompt_tokens=m.prompt_tokens,
        cached_prompt_tokens=m.cached_prompt_tokens,
        output_tokens=m.output_tokens,
        attempts=m.attempts,
        cost=m.cost,
    )
