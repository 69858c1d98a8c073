"""Services whose standard error nobody reads any more: a log shipper that hangs, a terminal stopped with Ctrl-S."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sage_client import AsyncClient, InstanceState, UnavailableError
from tests.support.eventually import eventually
from tests.support.free_port import free_port


@contextmanager
def full_pipe() -> Iterator[int]:
    """Give the end of a pipe at which every write blocks."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, b"a line\n")
        except BlockingIOError:
            os.set_blocking(writing, True)
        yield writing
    finally:
        os.close(reading)
        os.close(writing)


@asynccontextmanager
async def service(module: str, *flags: str, log: int) -> AsyncIterator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(sys.executable, "-m", module, *flags, stderr=log)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def is_ready(client: AsyncClient) -> bool:
    try:
        fleet = await client.list_instances()
    except UnavailableError:
        return False
    return [each.state for each in fleet.instances] == [InstanceState.READY]


async def test_a_log_that_nobody_reads_holds_neither_service_up() -> None:
    address = f"127.0.0.1:{free_port()}"
    engine = ["--engine.kind", "simulated", "--model", "sim"]
    with full_pipe() as log:
        async with (
            asyncio.timeout(60),
            service("scheduler_svc", "--listen", address, log=log) as scheduler,
            service("executor_svc", *engine, "--scheduler", address, log=log) as executor,
            AsyncClient(address) as client,
        ):
            await eventually(lambda: is_ready(client), within_s=50)
            done = await client.generate("Once", max_tokens=20, ignore_eos=True).result()
            assert done.usage.completion_tokens == 20
            for each in (executor, scheduler):
                each.terminate()
                assert await each.wait() == 0
