"""Requests are given up at any moment of a split, and nothing stays behind in either engine."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from sage_client import RequestCancelledError
from tests.vllm.pd_system.checked_stream import CheckedStream
from tests.vllm.pd_system.pd_fleet import PdFleet

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

REQUESTS = 200
AT_ONCE = 4
SEED = 3
MOMENTS = ("queued", "placed", "prefilled", "first_token")  # the last thing that happened before the end


async def give_up(stream: CheckedStream, after_s: float) -> None:
    await stream.accepted()

    async def cancel() -> None:
        await asyncio.sleep(after_s)
        await stream.stream.cancel()

    async with asyncio.TaskGroup() as group:
        group.create_task(cancel())
        with pytest.raises(RequestCancelledError):
            await stream.complete()


async def moment(fleet: PdFleet, stream: CheckedStream) -> str:
    """How far the request had come."""
    events = [e.event for e in (await fleet.client.explain(stream.stream.request_id)).history]
    return max(("queued", *(e for e in events if e in MOMENTS)), key=MOMENTS.index)


async def test_200_cancellations_at_random_moments_leave_nothing_in_use(fleet: PdFleet) -> None:
    random_ = random.Random(SEED)
    fallbacks = await fleet.fallbacks()
    streams: list[CheckedStream] = []
    places = asyncio.Semaphore(AT_ONCE)

    async def one(length: int, after_s: float) -> None:
        async with places:
            stream = fleet.stream(fleet.prompt(length), max_tokens=500)
            streams.append(stream)
            await give_up(stream, after_s)

    await asyncio.gather(
        *(
            one(random_.choice([60, 200, 500]), random_.uniform(0.0, random_.choice([0.1, 0.3, 0.9])))
            for _ in range(REQUESTS)
        )
    )
    await fleet.nothing_held()
    assert await fleet.fallbacks() == fallbacks
    seen = Counter([await moment(fleet, stream) for stream in streams])
    assert all(seen[each] >= 5 for each in MOMENTS[1:]), f"{seen}: not every moment was met"
    prompts = [fleet.prompt(300)]
    await fleet.check(prompts, await fleet.complete(prompts))
