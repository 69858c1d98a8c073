"""This control plane as an arm beside the routers: a scheduler, executors at the same beat, the SDK or HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from sage_client import AsyncClient, SageError, Tokens
from tests.bench.child import Child, child
from tests.bench.control_plane import START_TIMEOUT_S, port_in
from tests.bench.cpu_clock import cpu_seconds
from tests.bench.engines import simulated
from tests.bench.gateway.gateway_processes import GatewayProcesses, gateway
from tests.bench.rivals import http_streams
from tests.bench.rivals.http_streams import RUN_TIMEOUT_S
from tests.bench.rivals.stream_end import StreamEnd

MODEL = "simulated"


@dataclass(frozen=True, slots=True)
class Ours:
    """A control plane that serves."""

    address: str  # of the scheduler
    scheduler: Child
    executors: list[Child]
    client: AsyncClient

    def cpu_s(self) -> float:
        """CPU seconds that the scheduler's process has used so far."""
        return cpu_seconds(self.scheduler.pid)

    async def run(self, streams: int, tokens: int) -> list[StreamEnd]:
        """Run requests to their ends."""
        return await asyncio.gather(*(self._one(number, tokens) for number in range(streams)))

    async def _one(self, number: int, tokens: int) -> StreamEnd:
        started = time.perf_counter()
        stream = self.client.generate(
            f"Tell me story number {number}, {'word ' * 24}",
            max_tokens=tokens,
            ignore_eos=True,
            no_instance="wait",
            timeout=RUN_TIMEOUT_S,
        )
        count, first_s, gap_s, last_at, said_why = 0, 0.0, 0.0, 0.0, False
        try:
            async for event in stream:
                if isinstance(event, Tokens):
                    now = time.perf_counter()
                    first_s = first_s or now - started
                    gap_s = max(gap_s, now - last_at) if last_at else 0.0
                    last_at = now
                    count += len(event.token_ids)
        except SageError:
            said_why = True
        return StreamEnd(whole=count == tokens, said_why=said_why, first_s=first_s, longest_gap_s=gap_s)

    def kill_worker(self) -> None:
        """End one executor at once."""
        self.executors[0].kill()


@dataclass(frozen=True, slots=True)
class OursOverHttp:
    """A control plane with an OpenAI gateway before it."""

    plane: Ours
    front: GatewayProcesses

    def cpu_s(self) -> float:
        """CPU seconds that the gateway and the scheduler have used so far."""
        return self.plane.cpu_s() + self.front.cpu_s()

    async def run(self, streams: int, tokens: int) -> list[StreamEnd]:
        """Run requests to their ends."""
        return await http_streams.run(self.front.port, MODEL, streams, tokens)

    def kill_worker(self) -> None:
        """End one executor at once."""
        self.plane.kill_worker()


@asynccontextmanager
async def ours(*, workers: int, step_s: float) -> AsyncIterator[Ours]:
    """A scheduler with ``workers`` executors."""
    engine = simulated(step_s=step_s, streams=256)
    async with AsyncExitStack() as stack:
        scheduler = await stack.enter_async_context(
            child("scheduler", "scheduler_svc", "--listen", "127.0.0.1:0", "--policy", "fifo")
        )
        address = f"127.0.0.1:{port_in(await scheduler.wait_for('serving on', START_TIMEOUT_S))}"
        executors = []
        for number in range(workers):
            flags = ("--scheduler", address, "--instance-id", f"executor-{number}", *engine.executor_flags)
            executor = await stack.enter_async_context(child("executor", "executor_svc", *flags))
            await executor.wait_for("ready: ", engine.start_timeout_s)
            executors.append(executor)
        client = await stack.enter_async_context(AsyncClient(address))
        system = Ours(address, scheduler, executors, client)
        await system.run(2 * workers, 2)
        yield system


@asynccontextmanager
async def ours_over_http(*, workers: int, step_s: float) -> AsyncIterator[OursOverHttp]:
    """The same behind an OpenAI gateway of one process."""
    async with (
        ours(workers=workers, step_s=step_s) as plane,
        gateway(plane.address, MODEL, flags=("--uvloop",)) as front,
    ):
        yield OursOverHttp(plane, front)
