"""Chat completions over HTTP, read by a client that costs little: chunks are counted and left unparsed."""

from __future__ import annotations

import asyncio
import json
import time

from tests.bench.rivals.mock_worker import MODEL
from tests.bench.rivals.stream_end import StreamEnd

RUN_TIMEOUT_S = 60.0


async def run(port: int, streams: int, tokens: int) -> list[StreamEnd]:
    """Run ``streams`` requests at once to their ends."""
    async with asyncio.timeout(RUN_TIMEOUT_S):
        return await asyncio.gather(*(_one(port, number, tokens) for number in range(streams)))


async def _one(port: int, number: int, tokens: int) -> StreamEnd:
    body = json.dumps(
        {
            "model": MODEL,
            "stream": True,
            "max_tokens": tokens,
            "messages": [{"role": "user", "content": f"Tell me story number {number}, {'word ' * 24}"}],
        }
    ).encode()
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    count, first_s, gap_s, last_at, said_why = 0, 0.0, 0.0, 0.0, False
    try:
        async for line in reader:
            if line.startswith(b"data: {"):
                now = time.perf_counter()
                if b'"error"' in line:
                    said_why = True
                    continue
                count += 1
                if count == 1:
                    first_s = now - started
                else:
                    gap_s = max(gap_s, now - last_at)
                last_at = now
            elif line.startswith(b"data: [DONE]") or line == b"0\r\n":
                break
    except ConnectionError:
        pass
    writer.close()
    return StreamEnd(tokens=count, whole=count == tokens, said_why=said_why, first_s=first_s, longest_gap_s=gap_s)
