"""Chat completions over HTTP, for all systems of the comparison that speak it."""

from __future__ import annotations

import asyncio

from tests.bench.http_streams import CHAT, stream
from tests.bench.rivals.stream_end import StreamEnd

RUN_TIMEOUT_S = 60.0


async def run(port: int, model: str, streams: int, tokens: int) -> list[StreamEnd]:
    """Run ``streams`` requests at once to their ends."""
    async with asyncio.timeout(RUN_TIMEOUT_S):
        return await asyncio.gather(*(_one(port, model, number, tokens) for number in range(streams)))


async def _one(port: int, model: str, number: int, tokens: int) -> StreamEnd:
    content = f"Tell me story number {number}, {'word ' * 24}"
    fields = {"model": model, "max_tokens": tokens, "messages": [{"role": "user", "content": content}]}
    end = await stream(port, CHAT, {**fields, "ignore_eos": True})
    return StreamEnd(
        whole=end.tokens == tokens, said_why=end.said_why, first_s=end.first_s, longest_gap_s=end.longest_gap_s
    )
