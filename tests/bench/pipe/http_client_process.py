"""A client of an OpenAI server in a process of its own: runs its share of a workload as streamed completions.

Run as a child: reads the server's port and its model's name, then one line of JSON per workload; answers each with a
line.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.bench.http_streams import COMPLETIONS, stream
from tests.bench.workload import Workload

READY = "http client: ready"
RESULT = "http client: result "


async def _stream(port: int, model: str, prompt: list[int], max_tokens: int) -> int:
    """Return how many tokens the server says that it generated."""
    fields = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0.0, "ignore_eos": True}
    end = await stream(port, COMPLETIONS, fields)
    if end.tokens is None:
        raise RuntimeError(f"no usage in the stream, which ended with {end.last!r}")
    return end.tokens


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
