"""A client of an OpenAI server in a process of its own: runs its share of a workload as streamed completions.

Run as a child: reads the server's port and its model's name, then one line of JSON per workload; answers each with a
line.  HTTP is spoken on a plain socket, and chunks are only searched for what ends a stream: the client costs as little
as one can.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys

from tests.bench.workload import Workload

READY = "http client: ready"
RESULT = "http client: result "
END = b"data: [DONE]"
USAGE = re.compile(rb'"completion_tokens": ?(\d+)')
READ_BYTES = 1 << 16


async def _stream(port: int, model: str, prompt: list[int], max_tokens: int) -> int:
    """Return how many tokens the server says that it generated."""
    body = json.dumps(
        {
            "model": model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    writer.write(head.encode() + b"\r\nConnection: close\r\n\r\n" + body)
    last = b""
    try:
        while part := await reader.read(READ_BYTES):
            last = (last + part)[-2_048:]
            if END in last:
                break
    finally:
        writer.close()
    found = USAGE.findall(last)
    if not found:
        raise RuntimeError(f"no usage in the stream, which ended with {last[-300:]!r}")
    return int(found[-1])


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    port, model = json.loads(await lines.readline())
    print(READY, flush=True)
    while line := await lines.readline():
        workload = Workload(**json.loads(line))
        streams = (_stream(port, model, prompt, workload.max_tokens) for prompt in workload.prompts())
        tokens = sum(await asyncio.gather(*streams))
        if tokens != workload.output_tokens:
            raise RuntimeError(f"{tokens} tokens arrived of {workload.output_tokens}")
        print(RESULT + json.dumps({"tokens": tokens}), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
