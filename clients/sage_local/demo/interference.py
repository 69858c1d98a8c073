"""Measures how much long prompts delay other streams: runs one turn of a load, and computes its figures."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import sage_client as sage
from sage_local.demo.prompts import Prompts
from sage_local.demo.split_request import SplitRequest, run_request

STREAMS = 4  # short streams at the same time
SHORT_PROMPT, SHORT_OUTPUT = 64, 96  # tokens
LONG_OUTPUT = 8  # tokens
PREFILL_SHARE = 0.4  # share of one engine's time that the long prompts take
FEWEST, MOST = 3, 20  # long prompts in a turn


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """A turn's load: long prompts at an even pace, while ``STREAMS`` readers each send short requests in sequence."""

    longs: int  # number of long prompts
    long_tokens: int  # prompt tokens of each
    every_s: float  # seconds between two of them

    @classmethod
    def fitting(cls, *, long_tokens: int, prefill_s: float, turn_s: float) -> Load:
        """Return a load for a turn of about ``turn_s`` seconds.

        ``prefill_s`` is the prefill time in seconds of one long prompt on an idle engine.
        """
        every_s = prefill_s / PREFILL_SHARE
        return cls(longs=min(max(round(turn_s / every_s), FEWEST), MOST), long_tokens=long_tokens, every_s=every_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """The requests of one turn."""

    shorts: tuple[SplitRequest, ...]
    longs: tuple[SplitRequest, ...]

    @property
    def problems(self) -> list[str]:
        """Messages of the requests that failed."""
        return [f"{each.kind} request: {each.error}" for each in (*self.shorts, *self.longs) if each.error]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The figures of all turns of one arrangement."""

    itl_p50_s: float  # seconds between two messages with tokens of a short stream
    itl_p99_s: float  # seconds
    longest_pause_s: float  # seconds; median of the short streams' longest pauses
    long_ttft_s: float  # seconds; median time to first token of the long requests
    shorts: int  # short requests
    longs: int  # long requests
    split: int  # long requests that were split


async def run_turn(client: sage.AsyncClient, prompts: Prompts, load: Load) -> Turn:
    """Run the load until all long requests ended, then let running short requests finish."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(_read(client, prompts, over), name=f"reader-{n}") for n in range(STREAMS)]
        try:
            longs = await _long_prompts(client, prompts, load)
        finally:
            over.set()
    return Turn(shorts=tuple(each for reader in readers for each in reader.result()), longs=longs)


def figures(turns: Sequence[Turn]) -> Figures:
    """Compute the figures of an arrangement's turns.

    Raises:
        ValueError: no short or no long request finished.
    """
    shorts = [each for turn in turns for each in turn.shorts if each.gaps and not each.error]
    longs = [each for turn in turns for each in turn.longs if not each.error]
    gaps = [gap for each in shorts for gap in each.gaps]
    firsts = [each.ttft_s for each in longs if each.ttft_s is not None]
    if len(gaps) < 2 or not firsts:
        raise ValueError("no short or no long request finished")
    percentiles = statistics.quantiles(gaps, n=100)
    return Figures(
        itl_p50_s=percentiles[49],
        itl_p99_s=percentiles[98],
        longest_pause_s=statistics.median(max(each.gaps) for each in shorts),
        long_ttft_s=statistics.median(firsts),
        shorts=len(shorts),
        longs=len(longs),
        split=sum(each.split for each in longs),
    )


async def _read(client: sage.AsyncClient, prompts: Prompts, over: asyncio.Event) -> list[SplitRequest]:
    seen: list[SplitRequest] = []
    while not over.is_set():
        seen.append(await run_request(client, "short", prompts.of(SHORT_PROMPT), SHORT_OUTPUT))
        if seen[-1].error:
            return seen
    return seen


async def _long_prompts(client: sage.AsyncClient, prompts: Prompts, load: Load) -> tuple[SplitRequest, ...]:
    tasks: list[asyncio.Task[SplitRequest]] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(load.longs):
            await asyncio.sleep(load.every_s)
            tasks.append(group.create_task(run_request(client, "long", prompts.of(load.long_tokens), LONG_OUTPUT)))
    return tuple(task.result() for task in tasks)
