"""The yardstick of latency: a bare grpc.aio server that gives back the bytes it got.

Run as a child; prints its port.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from tests.bench.child import child

SERVICE, METHOD = "sage.bench.Echo", "Echo"
LISTENING = "echo: listening on port "
START_TIMEOUT_S = 30.0

Echo = Callable[[], Awaitable[None]]


@asynccontextmanager
async def echo_server() -> AsyncIterator[Echo]:
    """Calls the server once: 32 bytes there, the same back."""
    async with child("echo server", "tests.bench.echo") as process:
        line = await process.wait_for(LISTENING, START_TIMEOUT_S)
        port = re.sub(r"\D", "", line.partition(LISTENING)[2])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(f"/{SERVICE}/{METHOD}")

            async def echo() -> None:
                await call(b"x" * 32)

            yield echo


async def _answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return request


async def _serve() -> None:
    handler: Any = grpc.unary_unary_rpc_method_handler(_answer)  # type: ignore[arg-type]  # typed for threads only
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
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
