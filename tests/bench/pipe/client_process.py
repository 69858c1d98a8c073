"""A client in a process of its own: runs its share of a workload's streams through the control plane with the SDK.

Run as a child: reads the scheduler's address, then one line of JSON per workload; answers each with a line.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sage_client import AsyncClient
from tests.bench.child import Child, child
from tests.bench.streams import RUN_TIMEOUT_S, run_with_sdk
from tests.bench.workload import Workload

READY = "client: ready"
RESULT = "client: result "
START_TIMEOUT_S = 60.0


class Clients:
    """Several client processes, which share the streams of each workload."""

    def __init__(self, processes: list[Child]) -> None:
        self.processes = processes

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def cpu_s(self) -> float:
        """CPU seconds that all of them have used so far."""
        return sum(process.cpu_s() for process in self.processes)

    async def run(self, workload: Workload) -> None:
        """Run a workload to its end; ``workload.streams`` is a multiple of the number of processes."""
        await asyncio.gather(
            *(_run_share(each, workload, place, len(self.processes)) for place, each in enumerate(self.processes))
        )


async def _run_share(process: Child, workload: Workload, place: int, of: int) -> None:
    share = dataclasses.replace(workload, streams=workload.streams // of, seed=workload.seed * of + place)
    await process.tell(json.dumps(dataclasses.asdict(share)))
    await process.wait_for(RESULT, RUN_TIMEOUT_S)


@asynccontextmanager
async def clients(address: str, count: int) -> AsyncIterator[Clients]:
    """``count`` client processes of the scheduler at ``address``."""
    async with AsyncExitStack() as stack:
        processes = []
        for number in range(count):
            process = await stack.enter_async_context(child(f"client {number}", "tests.bench.pipe.client_process"))
            await process.tell(address)
            await process.wait_for(READY, START_TIMEOUT_S)
            processes.append(process)
        yield Clients(processes)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with AsyncClient((await lines.readline()).decode().strip()) as client:
        print(READY, flush=True)
        while line := await lines.readline():
            run = await run_with_sdk(client, Workload(**json.loads(line)))
            print(RESULT + json.dumps({"tokens": run.tokens, "messages": run.messages}), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
