"""A client of OpenAI servers in a process of its own.

Run as a child: reads one line of JSON per load, and answers each with a line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.bench.child import Child, child
from tests.bench.http_streams import CHAT, stream
from tests.bench.streams import RUN_TIMEOUT_S
from tests.bench.workload import Workload

READY = "load client: ready"
RESULT = "load client: result "
START_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Requests of one kind, all at once."""

    port: int
    model: str
    path: str  # CHAT or COMPLETIONS
    workload: Workload
    more: dict[str, Any] = field(default_factory=dict)  # further fields of each request

    def fields(self) -> list[dict[str, Any]]:
        """Return each request's own fields."""
        common = {"model": self.model, "max_tokens": self.workload.max_tokens, "temperature": 0.0, "ignore_eos": True}
        common |= self.more
        if self.path != CHAT:
            return [{**common, "prompt": prompt} for prompt in self.workload.prompts()]
        words = [" ".join(f"word{number}" for number in prompt) for prompt in self.workload.prompts()]
        return [{**common, "messages": [{"role": "user", "content": text}]} for text in words]


class LoadClient:
    """The benchmark's side of the child."""

    def __init__(self, process: Child) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU seconds it has used so far."""
        return self._process.cpu_s()

    async def run(self, load: Load) -> list[float]:
        """Run a load to its end; return the seconds to each stream's first chunk.  Raises ChildFailed."""
        await self._process.tell(json.dumps(asdict(load)))
        line = await self._process.wait_for(RESULT, RUN_TIMEOUT_S)
        firsts: list[float] = json.loads(line.partition(RESULT)[2])
        return firsts


@asynccontextmanager
async def load_client() -> AsyncIterator[LoadClient]:
    """A client process."""
    async with child("load client", "tests.bench.gateway.load_client") as process:
        await process.wait_for(READY, START_TIMEOUT_S)
        yield LoadClient(process)


async def _run(load: Load) -> list[float]:
    ends = await asyncio.gather(*(stream(load.port, load.path, fields) for fields in load.fields()))
    for end in ends:
        if end.tokens != load.workload.max_tokens:
            raise RuntimeError(f"a stream has {end.tokens} tokens of {load.workload.max_tokens}, and ends {end.last!r}")
    return [end.first_s for end in ends]


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print(READY, flush=True)
    while line := await lines.readline():
        given = json.loads(line)
        load = Load(**{**given, "workload": Workload(**given["workload"])})
        print(RESULT + json.dumps(await _run(load)), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
