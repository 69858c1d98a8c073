"""Short chats while long prompts arrive."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from dataclasses import dataclass

from sage_client import AsyncClient
from tests.bench.pd.streamed import Streamed, stream
from tests.bench.workload import VOCABULARY

SHORT_PROMPT, SHORT_OUTPUT = 64, 128  # tokens
LONG_PROMPT, LONG_OUTPUT = 3_500, 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Of one run.  Seconds, but for the last."""

    short_itl_p50: float
    short_itl_p99: float
    short_longest_gap_p50: float  # of each stream's longest pause between two tokens
    short_ttft_p50: float
    long_ttft_p50: float
    completed_per_s: float
    longs_split: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """``shorts_per_long``: short requests that arrive for each long one."""

    shorts_per_long: int

    @property
    def group(self) -> int:
        """Requests of one group: the short ones and a long one."""
        return self.shorts_per_long + 1

    def draw(self, seed: int, groups: int) -> list[list[int]]:
        """Prompts in the order they arrive, shuffled within each group."""
        order = random.Random(seed)
        prompts: list[list[int]] = []
        for _ in range(groups):
            lengths = [SHORT_PROMPT] * self.shorts_per_long + [LONG_PROMPT]
            order.shuffle(lengths)
            prompts += [order.choices(VOCABULARY, k=length) for length in lengths]
        return prompts

    async def saturation(self, client: AsyncClient, *, seed: int, groups: int) -> float:
        """Requests per second when all of them are there from the start."""
        prompts = self.draw(seed, groups)
        began = time.perf_counter()
        await asyncio.gather(*(_one(client, prompt) for prompt in prompts))
        return len(prompts) / (time.perf_counter() - began)

    async def run(self, client: AsyncClient, *, seed: int, groups: int, per_s: float) -> Figures:
        """Open loop: ``per_s`` arrivals per second on average, exponentially apart; the same for every arm."""
        gaps = random.Random(seed + 1)
        tasks: list[asyncio.Task[Streamed]] = []
        due = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for prompt in self.draw(seed, groups):
                due += gaps.expovariate(per_s)
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.append(group.create_task(_one(client, prompt)))
        return _figures([task.result() for task in tasks])


async def _one(client: AsyncClient, prompt: list[int]) -> Streamed:
    return await stream(client, prompt, LONG_OUTPUT if len(prompt) == LONG_PROMPT else SHORT_OUTPUT)


def _figures(streams: list[Streamed]) -> Figures:
    shorts = [each for each in streams if len(each.token_ids) == SHORT_OUTPUT]
    longs = [each for each in streams if len(each.token_ids) == LONG_OUTPUT]
    gaps = [gap for each in shorts for gap in each.gaps]
    percentiles = statistics.quantiles(gaps, n=100)
    taken = max(each.ended for each in streams) - min(each.began for each in streams)
    return Figures(
        short_itl_p50=percentiles[49],
        short_itl_p99=percentiles[98],
        short_longest_gap_p50=statistics.median(max(each.gaps) for each in shorts),
        short_ttft_p50=statistics.median(each.first_token_s for each in shorts),
        long_ttft_p50=statistics.median(each.first_token_s for each in longs),
        completed_per_s=len(streams) / taken,
        longs_split=sum(each.split for each in longs),
    )
