"""A control plane to measure: one scheduler and one executor, each a process of its own, as users run them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sage_client import AsyncClient
from tests.bench.child import Child, child
from tests.bench.engines import Engine

START_TIMEOUT_S = 30.0  # for the scheduler; an engine says itself how long it may take
FIRST_REQUEST_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlPlane:
    address: str  # of the scheduler, host:port
    scheduler: Child
    executor: Child

    @property
    def pids(self) -> tuple[int, int]:
        return self.scheduler.pid, self.executor.pid


@asynccontextmanager
async def control_plane(
    engine: Engine, *, scheduler_flags: Sequence[str] = (), executor_flags: Sequence[str] = ()
) -> AsyncIterator[ControlPlane]:
    """Up, its engine READY and one request served.  Everything but the engine and the flags is as the defaults have
    it."""
    async with child("scheduler", "scheduler_svc", "--listen", "127.0.0.1:0", *scheduler_flags) as scheduler:
        address = f"127.0.0.1:{port_in(await scheduler.wait_for('serving on', START_TIMEOUT_S))}"
        flags = ("--scheduler", address, "--instance-id", "executor-1", *engine.executor_flags, *executor_flags)
        async with child("executor", "executor_svc", *flags) as executor:
            await executor.wait_for("ready: ", engine.start_timeout_s)
            await _first_request(address)
            yield ControlPlane(address=address, scheduler=scheduler, executor=executor)


async def _first_request(address: str) -> None:
    """The scheduler may not know yet that the engine is up, so this one waits in its queue."""
    async with AsyncClient(address) as client:
        await client.generate(
            "hello", no_instance="wait", max_tokens=8, ignore_eos=True, timeout=FIRST_REQUEST_TIMEOUT_S
        ).result()


def port_in(line: str) -> int:
    """The port that a scheduler says it serves on."""
    found = re.search(r"\(port (\d+)\)", line)
    assert found is not None, line
    return int(found[1])
