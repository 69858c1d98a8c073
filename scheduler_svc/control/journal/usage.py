"""Usage records: what each request used, and the port to where they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol


class UsageRecord(NamedTuple):
    """What a request used.  It has no prompt and no output.

    A tuple: one is made for each request, at a tenth of what a frozen dataclass takes.
    """

    tenant: str
    request_id: str
    model: str
    adapter: str  # empty: none
    priority: str  # "critical" .. "background"
    detached: bool
    prompt_tokens: int
    cached_prompt_tokens: int  # found in a prefix cache, as far as its end tells
    output_tokens: int
    arrived_at: float  # seconds since 1970
    ended_at: float  # seconds since 1970
    waited_s: float | None  # arrival to the first placement; None: it was never placed
    first_token_s: float | None  # arrival to the first token; None: there was none
    attempts: int
    cost: float  # in the currency of the instances' prices
    end: str  # "finished" | "failed" | "cancelled" | "expired"
    reason: str  # "stop", "length", or a label of docs/ends-of-a-request.md
    adopted: bool = False  # begun under an earlier scheduler, which may have recorded the same end


ADOPTED_LATER_S = 600.0
"""Longest time between a request's end under an earlier scheduler and the end of its adopted self."""

ARRIVAL_S = 5.0
"""By how much two schedulers may differ about when the same request arrived."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageFilter:
    """Which records are meant."""

    since: float | None = None  # ended at this time or later, in seconds since 1970
    until: float | None = None  # ended before this time
    tenants: tuple[str, ...] = ()  # empty: all
    models: tuple[str, ...] = ()  # empty: all


class UsageGroup(Enum):
    """What records are summed by."""

    TENANT = "tenant"
    MODEL = "model"
    PRIORITY = "priority"
    END = "end"
    DAY = "day"  # on which they ended, in UTC: "2026-01-31"


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageSum:
    """Sums over the records of one group."""

    groups: tuple[str, ...]  # a value for each group that was asked for
    requests: int
    prompt_tokens: int
    cached_prompt_tokens: int
    output_tokens: int
    attempts: int
    cost: float


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageRetention:
    """How long, and how many, records are kept."""

    keep_s: float
    max_bytes: int  # estimated; the oldest go first


Position = tuple[float, int]
"""Where a page ended."""


class UsageStore(Protocol):
    """Keeps usage records; ``storage.journal.usage_store`` implements it.  All methods raise JournalUnavailable."""

    async def add(self, records: Sequence[UsageRecord], *, maybe_kept: bool = False) -> None:
        """Keep records; on return they are on the disk.  That of an adopted request replaces an earlier scheduler's.

        ``maybe_kept``: an earlier call with some of them did not return, and may have kept them all the same.
        """
        ...

    async def page(
        self, wanted: UsageFilter, after: Position | None, most: int
    ) -> tuple[Sequence[UsageRecord], Position | None]:
        """Return the next records, the oldest first, and where they end; None: there are no more."""
        ...

    async def sums(self, wanted: UsageFilter, groups: Sequence[UsageGroup], most: int) -> Sequence[UsageSum]:
        """Return sums by groups, sorted by them; at most ``most + 1``."""
        ...

    async def retain(self, retention: UsageRetention, now: float) -> int:
        """Delete records that need not be kept; return how many.  ``now``: seconds since 1970."""
        ...
