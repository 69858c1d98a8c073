"""What long prompts do to streams that decode: two GENERAL executors, with three sizes of prefill chunk, against one
prefill and one decode executor.

All arms are up and take turns; those that wait are asleep.  Every arm gets the same arrivals, at a rate that is a
fixed share of what the slowest arm can take.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from sage_client import AsyncClient
from tests.bench.pd.fleet import fleet
from tests.bench.pd.mixture import Figures, Mixture
from tests.bench.pd.platform import CONNECTOR, Platform
from tests.bench.pd.witness import all_handed_over
from tests.bench.report import Row
from tests.bench.rounds import spread

CHUNKS = (256, 512, 2_048)  # tokens
SEPARATED_CHUNK = 2_048
SHARE = 0.55  # of the slowest arm's saturation
SATURATION_REQUESTS = 40
LEAST_GROUPS = 3
BENCHMARK = "interference"


@dataclass(slots=True)
class Arm:
    name: str
    client: AsyncClient
    saturation: float = 0.0  # requests/s
    rounds: list[Figures] = field(default_factory=list)


async def measure(platform: Platform, mixture: Mixture, *, rounds: int, run_s: float) -> list[Row]:
    """``run_s``: how long requests arrive in each run."""
    async with AsyncExitStack() as stack:
        arms = await _arms(platform, stack)
        for arm in arms:
            await mixture.saturation(arm.client, seed=1, groups=2)  # warms up
            await asyncio.sleep(platform.longest_step_s)
            arm.saturation = await mixture.saturation(
                arm.client, seed=2, groups=max(1, SATURATION_REQUESTS // mixture.group)
            )
            await asyncio.sleep(platform.longest_step_s)
        per_s = SHARE * min(arm.saturation for arm in arms)
        groups = max(LEAST_GROUPS, round(per_s * run_s / mixture.group))
        for number in range(rounds):
            for arm in arms if number % 2 else reversed(arms):
                print(f"  round {number + 1}: {arm.name}", file=sys.stderr)
                async with all_handed_over(arm.client) as splits:
                    figures = await mixture.run(arm.client, seed=100 + number, groups=groups, per_s=per_s)
                    splits.count = figures.longs_split
                arm.rounds.append(figures)
                await asyncio.sleep(platform.longest_step_s)
    return _rows(platform, mixture, arms, per_s)


async def _arms(platform: Platform, stack: AsyncExitStack) -> list[Arm]:
    async def general(chunk: int) -> Arm:
        engines = [platform.engine(place, chunk=chunk) for place in (0, 1)]
        client = await stack.enter_async_context(fleet(engines, ("general", "general"), split=False))
        return Arm(name=f"2 general, chunk {chunk}", client=client)

    async def separated() -> Arm:
        engines = [platform.engine(place, chunk=SEPARATED_CHUNK, connector=CONNECTOR) for place in (0, 1)]
        client = await stack.enter_async_context(fleet(engines, ("prefilling", "hybrid"), split=True))
        return Arm(name="1 prefill + 1 decode", client=client)

    starts = [*(general(chunk) for chunk in CHUNKS), separated()]
    if platform.gpu:
        return list(await asyncio.gather(*starts))  # the host has cores enough to start all at once
    return [await start for start in starts]


def _rows(platform: Platform, mixture: Mixture, arms: list[Arm], per_s: float) -> list[Row]:
    *general, separated = arms
    best = min(general, key=lambda arm: spread([each.short_itl_p99 for each in arm.rounds])["value"])
    rows: list[Row] = []
    for arm in arms:
        note = (
            f"{platform.name}; {mixture.shorts_per_long} short per long; "
            f"{per_s:.2f} requests/s, {per_s / arm.saturation:.0%} of what it can take"
        )
        if arm is separated:
            note += f"; {sum(each.longs_split for each in arm.rounds)} long prompts split"
        for case, unit, figures in (
            ("short ITL p50", "ms", [each.short_itl_p50 * 1e3 for each in arm.rounds]),
            ("short ITL p99", "ms", [each.short_itl_p99 * 1e3 for each in arm.rounds]),
            ("short longest gap p50", "ms", [each.short_longest_gap_p50 * 1e3 for each in arm.rounds]),
            ("short TTFT p50", "ms", [each.short_ttft_p50 * 1e3 for each in arm.rounds]),
            ("long TTFT p50", "ms", [each.long_ttft_p50 * 1e3 for each in arm.rounds]),
            ("completed", "requests/s", [each.completed_per_s for each in arm.rounds]),
        ):
            rows.append(Row(benchmark=BENCHMARK, case=f"{arm.name}: {case}", unit=unit, note=note, **spread(figures)))
            note = ""
    for case, target, ratios in (
        ("short ITL p99", "<= 0.5", _ratios(separated, best, lambda one: one.short_itl_p99)),
        ("short longest gap p50", "", _ratios(separated, best, lambda one: one.short_longest_gap_p50)),
        ("long TTFT p50", "", _ratios(separated, best, lambda one: one.long_ttft_p50)),
    ):
        unit = f"of {best.name}"
        rows.append(
            Row(benchmark=BENCHMARK, case=f"separated: {case}", unit=unit, target=target, note="", **spread(ratios))
        )
    return rows


def _ratios(one: Arm, other: Arm, figure: Callable[[Figures], float]) -> list[float]:
    """Round by round."""
    return [figure(mine) / figure(its) for mine, its in zip(one.rounds, other.rounds, strict=True)]
