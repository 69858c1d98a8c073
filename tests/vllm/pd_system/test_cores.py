"""Two engines on one machine do not compute on each other's core."""

from __future__ import annotations

import os

import pytest

from tests.vllm.pd_system.engine_settings import NAMES
from tests.vllm.pd_system.pd_fleet import PdFleet

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]


async def test_every_thread_of_a_worker_stays_on_its_core(fleet: PdFleet) -> None:
    """vLLM's NIXL connector moves the one that computes to the last core of the machine."""
    await fleet.complete([fleet.prompt(300)])
    for core, name in enumerate(NAMES):
        workers = [p for p in fleet.executor(name).descendants() if p.name().startswith("VLLM::Worker")]
        assert workers
        for worker in workers:
            assert {frozenset(os.sched_getaffinity(thread.id)) for thread in worker.threads()} == {frozenset({core})}
