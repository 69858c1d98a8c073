"""Whether what was placed as two legs was handed over: a decode engine that computes the prompt itself gives the same
tokens, and would make every figure here another one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sage_client import AsyncClient
from tests.bench.session import CannotMeasure

HEARTBEATS_WITHIN_S = 5.0
POLL_S = 0.1


@dataclass(slots=True)
class Splits:
    """Filled in by who sends the requests."""

    count: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counts:
    pulls: int  # by engines, over all
    failed: int
    fallbacks: int


@asynccontextmanager
async def all_handed_over(client: AsyncClient) -> AsyncIterator[Splits]:
    """Raises CannotMeasure at the end unless every split had its KV fetched, and nothing else was.

    Engines count in heartbeats, which come a moment later.  A pair that is warmed up meanwhile would be counted too:
    none is, while none fails.
    """
    before = await _counts(client)
    splits = Splits()
    yield splits
    late = time.monotonic() + HEARTBEATS_WITHIN_S
    while True:
        now = await _counts(client)
        grown = _Counts(
            pulls=now.pulls - before.pulls,
            failed=now.failed - before.failed,
            fallbacks=now.fallbacks - before.fallbacks,
        )
        if grown.failed or grown.fallbacks or grown.pulls > splits.count:
            raise CannotMeasure(f"{splits.count} requests were split: {grown}")
        if grown.pulls == splits.count:
            return
        if time.monotonic() > late:
            raise CannotMeasure(f"{splits.count} requests were split, {grown.pulls} pulls are counted")
        await asyncio.sleep(POLL_S)


async def _counts(client: AsyncClient) -> _Counts:
    instances = (await client.list_instances()).instances
    return _Counts(
        pulls=sum(each.kv_pulls for each in instances),
        failed=sum(each.kv_pulls_failed for each in instances),
        fallbacks=(await client.get_prefill_decode()).fallbacks,
    )
