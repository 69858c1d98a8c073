"""Measures how fast the engines are, so that the load fits them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import sage_client as sage

ROUNDS = 3  # the first one warms the engines up; the fastest counts, because disturbances only slow rounds down
STREAMS = 24  # more than can run at once, so that unequal engines share them as they share the burst
TOKENS = 24  # output tokens of each stream


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """The measured speed of the engines."""

    tokens_per_s: float  # of the whole fleet, with all slots busy
    stream_tokens_per_s: float  # of one of these streams
    has_chat_template: bool
    burst_s: float  # intended seconds of the burst


async def calibrate(client: sage.AsyncClient, *, burst_s: float) -> Calibration:
    """Run a few requests and measure them.

    Raises:
        SageError: a request failed.
    """
    has_template = await _has_chat_template(client)
    rates = [await _measure(client) for _ in range(ROUNDS)]
    return Calibration(
        tokens_per_s=max(total for total, _ in rates),
        stream_tokens_per_s=max(stream for _, stream in rates),
        has_chat_template=has_template,
        burst_s=burst_s,
    )


async def _measure(client: sage.AsyncClient) -> tuple[float, float]:
    """Return tokens per second of all streams together, and of the median stream."""
    began = time.monotonic()
    results = await asyncio.gather(*(_one(client, number) for number in range(STREAMS)))
    total = STREAMS * TOKENS / (time.monotonic() - began)
    times_s = sorted((result.timings.total_s or 0.0) - (result.timings.queue_s or 0.0) for result in results)
    return total, TOKENS / times_s[STREAMS // 2] if times_s[STREAMS // 2] else total / STREAMS


async def _one(client: sage.AsyncClient, number: int) -> sage.Completion:
    prompt = f"Once upon a time, number {number}"
    stream = client.generate(prompt, max_tokens=TOKENS, ignore_eos=True, temperature=0.0, deadline=300.0)
    return await stream.result()


async def _has_chat_template(client: sage.AsyncClient) -> bool:
    """Return whether the model has a chat template; without one the load's chats are sent as plain text."""
    try:
        await client.generate(messages=[{"role": "user", "content": "hello"}], max_tokens=1, deadline=300.0).result()
    except sage.InvalidRequestError:
        return False
    return True
