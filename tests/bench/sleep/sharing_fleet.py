"""A scheduler and two executors whose engines take turns on one device."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sage_client import AsyncClient, Instance, InstanceState
from tests.bench.child import ChildFailed, child
from tests.bench.control_plane import port_in
from tests.bench.engines import Engine

START_TIMEOUT_S = 60.0  # for the scheduler
POLL_S = 0.01
REQUEST_TIMEOUT_S = 240.0
NAMES = ("a", "b")


@asynccontextmanager
async def sharing_fleet(engine: Engine) -> AsyncIterator[tuple[AsyncClient, float]]:
    """Up: both engines were up once.  Yields a client, and the seconds that the first start took.

    The models are called ``a`` and ``b``, as their instances are.
    """
    async with AsyncExitStack() as stack:
        locks = stack.enter_context(tempfile.TemporaryDirectory())
        scheduler = await stack.enter_async_context(
            child("scheduler", "scheduler_svc", "--listen", "127.0.0.1:0", "--policy", "fifo")
        )
        address = f"127.0.0.1:{port_in(await scheduler.wait_for('serving on', START_TIMEOUT_S))}"
        began = time.perf_counter()
        executors = [
            await stack.enter_async_context(
                child(
                    name,
                    "executor_svc",
                    *("--scheduler", address, "--instance-id", name, "--engine.model.served-name", name),
                    *("--device-group.name", "device", "--device-group.directory", locks),
                    *engine.executor_flags,
                )
            )
            for name in NAMES
        ]
        await executors[0].wait_for("ready: ", engine.start_timeout_s)
        start_s = time.perf_counter() - began
        await executors[1].wait_for("ready: ", engine.start_timeout_s)
        client = await stack.enter_async_context(AsyncClient(address))
        for name in NAMES:
            await tokens_of(client, name, 8)
        yield client, start_s


async def until(client: AsyncClient, name: str, state: InstanceState, reason: str = "") -> Instance:
    """Wait until an instance is in a state, for this reason if one is given.  Raises ChildFailed after 300 s."""
    late = time.monotonic() + 300.0
    while time.monotonic() < late:
        found = await client.get_instance(name)
        if found.state is state and (not reason or found.state_reason == reason):
            return found
        await asyncio.sleep(POLL_S)
    raise ChildFailed(f"{name} is not {state.value} after 300 s, but {found.state.value}: {found.state_reason}")


async def tokens_of(client: AsyncClient, model: str, count: int, prompt: int = 300) -> tuple[int, ...]:
    """Return a greedy answer of so many tokens.  Raises ChildFailed if there are fewer."""
    done = await client.generate(
        token_ids=[prompt] * 8,
        model=model,
        no_instance="wait",
        max_tokens=count,
        ignore_eos=True,
        temperature=0.0,
        timeout=REQUEST_TIMEOUT_S,
    ).result()
    if len(done.token_ids) != count:
        raise ChildFailed(f"{len(done.token_ids)} tokens arrived of {count}")
    return tuple(done.token_ids)
