"""A client that measures itself: reads a workload's streams with the SDK and tells the CPU time that took.

Run as a child: takes an address; reads one line of JSON per run; answers each with a line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from sage_client import Accepted, AsyncClient, ChoiceFinished, Finished, PromptRead, SageError, Scheduled, TokenLogprob
from tests.bench.child import Child, child
from tests.bench.streams import RUN_TIMEOUT_S, run_with_sdk
from tests.bench.workload import Workload

READY = "sdk client: ready"
RESULT = "sdk client: result "
START_TIMEOUT_S = 60.0

Way = Literal["generate", "events", "sinks"]
"""How requests travel: Generate calls, or a session read as events or by sinks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One run."""

    cpu_s: float  # of the process, all threads
    wall_s: float


class SdkClient:
    """The benchmark's side of the child."""

    def __init__(self, process: Child) -> None:
        self._process = process

    async def run(self, workload: Workload, way: Way) -> Cost:
        await self._process.tell(json.dumps([way, asdict(workload)]))
        line = await self._process.wait_for(RESULT, RUN_TIMEOUT_S)
        return Cost(**json.loads(line.partition(RESULT)[2]))


@asynccontextmanager
async def sdk_client(address: str) -> AsyncIterator[SdkClient]:
    """A client process of the scheduler at ``address``."""
    async with child("sdk client", "tests.bench.sdk_client", address) as process:
        await process.wait_for(READY, START_TIMEOUT_S)
        yield SdkClient(process)


class _Counter:
    """A sink that does as little as one can."""

    def __init__(self) -> None:
        self.tokens_seen = self.points_seen = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def accepted(self, event: Accepted, /) -> None: ...

    def scheduled(self, event: Scheduled, /) -> None: ...

    def tokens(
        self,
        choice: int,
        first_index: int,
        token_ids: list[int],
        text_offset: int,
        text: str,
        logprobs: Sequence[tuple[TokenLogprob, ...]],
        /,
    ) -> None:
        self.tokens_seen += len(token_ids)
        self.points_seen += len(text)

    def prompt_read(self, event: PromptRead, /) -> None: ...

    def choice_finished(self, event: ChoiceFinished, /) -> None: ...

    def finished(self, event: Finished, /) -> None:
        self.ended.set_result(None)

    def failed(self, error: SageError, /) -> None:
        self.ended.set_exception(error)


async def _run_sinks(client: AsyncClient, workload: Workload) -> None:
    sinks = []
    for prompt in workload.prompts():
        sink = _Counter()
        client.start(token_ids=prompt, max_tokens=workload.max_tokens, temperature=0.0, ignore_eos=True, sink=sink)
        sinks.append(sink)
    await asyncio.wait_for(asyncio.gather(*(sink.ended for sink in sinks)), RUN_TIMEOUT_S)
    if (tokens := sum(sink.tokens_seen for sink in sinks)) != workload.output_tokens:
        raise RuntimeError(f"{tokens} tokens arrived of {workload.output_tokens}")


async def _serve(address: str) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with AsyncClient(address, use_sessions=True) as session, AsyncClient(address, use_sessions=False) as plain:
        print(READY, flush=True)
        while line := await lines.readline():
            way, given = json.loads(line)
            workload = Workload(**given)
            cpu, started = time.process_time(), time.perf_counter()
            if way == "sinks":
                await _run_sinks(session, workload)
            else:
                await run_with_sdk(session if way == "events" else plain, workload)
            cost = Cost(cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - started)
            print(RESULT + json.dumps(asdict(cost)), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
