"""Engines that stand still while a test counts what runs on them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import psutil

from sage_client import AsyncClient
from tests.support.eventually import eventually
from tests.support.service_process import ServiceProcess

ARRIVED_S = 0.3  # in which what an engine made before it stood still has mostly reached the scheduler
MOST_ENDED = 2  # of the requests counted had ended, on a busy machine, and the scheduler was not told in that time


def engine_processes(executor: ServiceProcess) -> list[psutil.Process]:
    """Return vLLM's own processes of an executor.  Raises AssertionError if it has none."""
    found = [each for each in executor.descendants() if "VLLM::" in " ".join(each.cmdline())]
    assert found, "the engine has a process of its own"
    return found


@asynccontextmanager
async def held_still(client: AsyncClient, executors: Mapping[str, ServiceProcess]) -> AsyncIterator[dict[str, int]]:
    """Hold the engines of ``executors`` and yield how many requests each has: none ends before the body does."""
    processes = [process for executor in executors.values() for process in engine_processes(executor)]
    try:
        for process in processes:
            process.suspend()
        yield await _counted(client, executors)
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # the body may kill it, or it ends by itself
                process.resume()


async def _counted(client: AsyncClient, executors: Mapping[str, ServiceProcess]) -> dict[str, int]:
    """Return what the scheduler says twice in a row."""
    last: dict[str, int] = {}

    async def twice_the_same() -> dict[str, int]:
        nonlocal last
        before, last = last, {name: (await client.get_instance(name)).assigned for name in executors}
        return last if last == before else {}

    return await eventually(twice_the_same, within_s=5.0, what="no request to end", every_s=ARRIVED_S)
