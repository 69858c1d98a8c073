"""What splitting costs a request that runs alone: time to first token split, less that of the same request whole.

Through the control plane, and in one process that holds both engines and hands over itself.  The figure is the first
cost over the second.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable

from sage_client import AsyncClient
from tests.bench.pd.direct_pair import MAX_TOKENS, DirectPair, direct_pair
from tests.bench.pd.fleet import fleet
from tests.bench.pd.platform import CONNECTOR, Platform
from tests.bench.pd.streamed import stream
from tests.bench.pd.witness import all_handed_over
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.session import CannotMeasure
from tests.bench.workload import VOCABULARY

PROMPTS = (512, 2_048, 3_500)  # tokens
CHUNK = 2_048
BENCHMARK = "handoff cost"

FirstToken = Callable[[list[int], bool], Awaitable[float]]
"""Prompt, whether to split: seconds to the first token."""


async def measure(platform: Platform, *, rounds: int, turns: int) -> list[Row]:
    """``turns`` split and as many whole requests per round, arm and length of prompt."""
    engines = [platform.engine(place, chunk=CHUNK, connector=CONNECTOR) for place in (0, 1)]
    async with fleet(engines, ("hybrid", "hybrid"), split=True) as client, direct_pair(*engines) as pair:
        prompts = _prompts()
        rows = []
        for length in PROMPTS:
            through: list[float] = []
            direct: list[float] = []
            for number in range(rounds + 1):
                kept = number > 0  # the first warms up
                for costs, first_token in ((through, _through(client)), (direct, _direct(pair))):
                    await asyncio.sleep(platform.longest_step_s)
                    async with all_handed_over(client) as splits:
                        cost = await _cost_s(first_token, prompts, length, turns if kept else 2)
                        splits.count = (turns if kept else 2) if costs is through else 0
                    if kept:
                        costs.append(cost)
            rows.append(_row(platform, length, through, direct))
        return rows


def _through(client: AsyncClient) -> FirstToken:
    async def first_token_s(prompt: list[int], split: bool) -> float:
        await client.set_prefill_decode("always" if split else "never")
        seen = await stream(client, prompt, MAX_TOKENS)
        if seen.split is not split:
            raise CannotMeasure(f"{len(prompt)} prompt tokens ran {'split' if seen.split else 'whole'}: {seen.why}")
        return seen.first_token_s

    return first_token_s


def _direct(pair: DirectPair) -> FirstToken:
    return lambda prompt, split: pair.first_token_s(prompt, split=split)


async def _cost_s(first_token: FirstToken, prompts: Callable[[int], list[int]], length: int, turns: int) -> float:
    """Median over the turns; both requests of a turn come one after the other, so that noise hits them alike."""
    costs = []
    for _ in range(turns):
        whole = await first_token(prompts(length), False)
        costs.append(await first_token(prompts(length), True) - whole)
    return statistics.median(costs)


def _prompts() -> Callable[[int], list[int]]:
    """No two alike: a prefix cache would serve them."""
    draw = random.Random(11)
    return lambda length: draw.choices(VOCABULARY, k=length)


def _row(platform: Platform, length: int, through: list[float], direct: list[float]) -> Row:
    mine, its = statistics.median(through) * 1e3, statistics.median(direct) * 1e3
    return Row(
        benchmark=BENCHMARK,
        case=f"{length} prompt tokens",
        unit="x in-process",
        target="<= 2",
        note=f"{platform.name}; {mine:.1f} ms, in one process {its:.1f} ms",
        **spread([one / other for one, other in zip(through, direct, strict=True)]),
    )
