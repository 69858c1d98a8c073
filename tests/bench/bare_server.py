"""The yardsticks: what grpc.aio itself takes, with nothing behind it.

``echo`` is a unary call that gives back the bytes it got.  ``stream`` writes messages of a Tokens event's size to any
number of streams, one to each at every tick: the least that a relay over grpc.aio can cost.

Run as a child; prints its port.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from tests.bench.child import Child, child
from tests.bench.workload import Workload

SERVICE = "sage.bench.Bare"
LISTENING = "bare server: listening on port "
START_TIMEOUT_S = 30.0
MESSAGE = b"x" * 40


# --- the benchmark's side -------------------------------------------------------------------------------------------


class BareServer:
    def __init__(self, process: Child, channel: grpc.aio.Channel) -> None:
        self._process = process
        self._echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/Echo")
        self._stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{SERVICE}/Stream")

    async def echo(self) -> None:
        await self._echo(b"x" * 32)

    async def run(self, workload: Workload, step_s: float) -> tuple[float, float]:
        """One message per token of ``workload``, at every ``step_s``.  Wall seconds, and the server's CPU seconds."""
        before, started = self._process.cpu_s(), time.perf_counter()
        counts = await asyncio.gather(*(self.read(workload.max_tokens, step_s) for _ in range(workload.streams)))
        assert sum(counts) == workload.output_tokens
        return time.perf_counter() - started, self._process.cpu_s() - before

    def cpu_s(self) -> float:
        """CPU seconds that the server has used so far."""
        return self._process.cpu_s()

    async def read(self, messages: int, step_s: float) -> int:
        """One stream of this many messages, one at every ``step_s``.  How many came."""
        count = 0
        async for _ in self._stream(json.dumps([messages, step_s]).encode()):
            count += 1
        return count


@asynccontextmanager
async def bare_server() -> AsyncIterator[BareServer]:
    async with child("bare server", "tests.bench.bare_server") as process:
        line = await process.wait_for(LISTENING, START_TIMEOUT_S)
        port = re.sub(r"\D", "", line.partition(LISTENING)[2])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield BareServer(process, channel)


# --- the child's side -----------------------------------------------------------------------------------------------

Context = grpc.aio.ServicerContext[bytes, bytes]


class _Ticks:
    """One beat for all streams, as an engine's steps are; it beats while anyone waits."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None
        self._due = 0.0

    async def wait(self, step_s: float) -> None:
        if self._next is None:
            loop = asyncio.get_running_loop()
            self._next = loop.create_future()
            self._due = max(self._due + step_s, loop.time())
            loop.call_at(self._due, self._beat, self._next)
        await asyncio.shield(self._next)

    def _beat(self, tick: asyncio.Future[None]) -> None:
        self._next = None
        tick.set_result(None)


async def _echo(request: bytes, context: Context) -> bytes:
    return request


def _streaming(ticks: _Ticks) -> Any:
    async def stream(request: bytes, context: Context) -> None:
        messages, step_s = json.loads(request)
        for _ in range(messages):
            await ticks.wait(step_s)
            await context.write(MESSAGE)

    return stream


async def _serve() -> None:
    behaviors: Any = {
        "Echo": grpc.unary_unary_rpc_method_handler(_echo),
        "Stream": grpc.unary_stream_rpc_method_handler(_streaming(_Ticks())),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, behaviors),))
    port = server.add_insecure_port("127.0.0.1:0")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.start()
    print(f"{LISTENING}{port}", flush=True)
    await stop.wait()
    await server.stop(grace=None)


if __name__ == "__main__":
    asyncio.run(_serve())
