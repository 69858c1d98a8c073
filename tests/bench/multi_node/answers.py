"""Answers of one engine, and what became of streams whose engine was struck."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from sage_client import AsyncClient, Completion
from tests.bench.workload import VOCABULARY
from tests.support.counted_stream import CountedStream

PROMPT_TOKENS = 64
ANSWER_TIMEOUT_S = 120.0


def prompt(number: int) -> list[int]:
    """Return the tokens of the prompt of this number."""
    return random.Random(number).choices(VOCABULARY, k=PROMPT_TOKENS)


async def answers(client: AsyncClient, instance: str, count: int, tokens: int) -> list[Completion]:
    """Return the greedy answers of an instance to the first ``count`` prompts, asked at once."""
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        return list(
            await asyncio.gather(*(_stream(client, instance, each, tokens).complete() for each in range(count)))
        )


async def rate(client: AsyncClient, instance: str, streams: int, tokens: int) -> tuple[float, int]:
    """Return the tokens/s of so many streams, and how many of them the instance served."""
    began = time.monotonic()
    done = await answers(client, instance, streams, tokens)
    took_s = time.monotonic() - began
    return sum(len(each.token_ids) for each in done) / took_s, sum(each.instance_id == instance for each in done)


async def begun(client: AsyncClient, instances: Sequence[str], count: int, tokens: int) -> list[CountedStream]:
    """Return streams that have ten tokens each, the prompts' numbers in order, spread over the instances."""
    streams = [_stream(client, instances[number % len(instances)], number, tokens) for number in range(count)]
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        await asyncio.gather(*(stream.until_token(10) for stream in streams))
    return streams


def compared(got: Sequence[Completion], wanted: Sequence[Completion]) -> str:
    """Say how many answers are equal, and how many tokens the others have in common."""
    pairs = [(mine.token_ids, theirs.token_ids) for mine, theirs in zip(got, wanted, strict=True)]
    shared = sorted(_shared(mine, theirs) for mine, theirs in pairs if tuple(mine) != tuple(theirs))
    said = f"{len(pairs) - len(shared)} of {len(pairs)} answers equal token by token"
    return f"{said}; the others part after {', '.join(map(str, shared))} tokens" if shared else said


def _shared(mine: Sequence[int], theirs: Sequence[int]) -> int:
    pairs = enumerate(zip(mine, theirs, strict=False))
    return next((position for position, (one, other) in pairs if one != other), min(len(mine), len(theirs)))


def _stream(client: AsyncClient, instance: str, number: int, tokens: int) -> CountedStream:
    return CountedStream(
        client.generate(
            token_ids=prompt(number),
            model="model",
            max_tokens=tokens,
            ignore_eos=True,
            temperature=0.0,
            preferred_instance=instance,
            timeout=ANSWER_TIMEOUT_S,
        )
    )
