"""A scheduler and two executors, as users run them, in the roles that a benchmark asks for."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from sage_client import AsyncClient, PairState
from tests.bench.child import ChildFailed, child
from tests.bench.control_plane import port_in
from tests.bench.engines import Engine

START_TIMEOUT_S = 60.0  # for the scheduler
PAIR_TIMEOUT_S = 60.0  # for the warm-up handoff
POLL_S = 0.1
FIRST_REQUEST_TIMEOUT_S = 60.0


@asynccontextmanager
async def fleet(
    engines: Sequence[Engine],
    roles: Sequence[str],
    *,
    split: bool,
    prices: Sequence[float] = (0.0, 0.0),
    scheduler_flags: Sequence[str] = (),
) -> AsyncIterator[AsyncClient]:
    """Up: every engine has served, every pair has handed over.  ``split``: prefill/decode separation is on."""
    async with AsyncExitStack() as stack:
        flags = ("--pd-separation.enabled", "--pd-separation.routing-policy", "threshold") if split else ()
        scheduler = await stack.enter_async_context(
            child("scheduler", "scheduler_svc", "--listen", "127.0.0.1:0", *flags, *scheduler_flags)
        )
        address = f"127.0.0.1:{port_in(await scheduler.wait_for('serving on', START_TIMEOUT_S))}"
        executors = [
            await stack.enter_async_context(
                child(
                    f"executor-{number}",
                    "executor_svc",
                    *("--scheduler", address, "--instance-id", f"executor-{number}", "--role", role),
                    *("--price-per-hour", str(price)),
                    *engine.executor_flags,
                    environment=engine.environment,
                )
            )
            for number, (engine, role, price) in enumerate(zip(engines, roles, prices, strict=True))
        ]
        began = time.monotonic()
        for executor, engine in zip(executors, engines, strict=True):
            await executor.wait_for("ready: ", engine.start_timeout_s)
        print(f"  {' + '.join(roles)}: up in {time.monotonic() - began:.0f} s", file=sys.stderr)
        client = await stack.enter_async_context(AsyncClient(address))
        await _served(client)
        if split:
            await _paired(client)
        yield client


async def _served(client: AsyncClient) -> None:
    await client.generate(
        token_ids=[300] * 8, no_instance="wait", max_tokens=8, ignore_eos=True, timeout=FIRST_REQUEST_TIMEOUT_S
    ).result()


async def _paired(client: AsyncClient) -> None:
    """Raises ChildFailed when no pair gets usable in its time."""
    late = time.monotonic() + PAIR_TIMEOUT_S
    while time.monotonic() < late:
        status = await client.get_prefill_decode()
        if status.pairs and all(pair.state is PairState.USABLE for pair in status.pairs):
            return
        await asyncio.sleep(POLL_S)
    raise ChildFailed(f"no usable pair in {PAIR_TIMEOUT_S:g} s: {status}")
