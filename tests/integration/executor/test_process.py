"""``python -m executor_svc`` as a process."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sage.controlplane.v1 import common_pb2
from tests.integration.executor.scripted_scheduler import ScriptedScheduler, scripted_scheduler


@asynccontextmanager
async def process(scheduler: ScriptedScheduler, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = ["-m", "executor_svc", "--engine.kind", "simulated", "--model", "sim", "--instance-id", "one"]
    started = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--scheduler", scheduler.address, *flags, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def test_sigterm_drains_and_ends_with_0() -> None:
    async with scripted_scheduler() as scheduler, process(scheduler) as started:
        session = await scheduler.session()
        await session.ready()
        sampling = common_pb2.SamplingParams(temperature=0, max_tokens=80, ignore_eos=True)
        session.assign(1, sampling=sampling)
        await session.until(lambda: session.token_ids(1))
        started.send_signal(signal.SIGTERM)
        assert (await session.ended(1)).total_tokens == 80
        async with asyncio.timeout(10):
            assert await started.wait() == 0
        assert session.heard("goodbye")


async def test_sighup_ends_nothing() -> None:
    async with scripted_scheduler() as scheduler, process(scheduler) as started:
        session = await scheduler.session()
        await session.ready()
        started.send_signal(signal.SIGHUP)
        session.assign(1, sampling=common_pb2.SamplingParams(temperature=0, max_tokens=20, ignore_eos=True))
        assert (await session.ended(1)).total_tokens == 20
        assert started.returncode is None


async def test_a_second_signal_ends_it_at_once() -> None:
    async with scripted_scheduler() as scheduler, process(scheduler) as started:
        session = await scheduler.session()
        await session.ready()
        session.assign(1, sampling=common_pb2.SamplingParams(temperature=0, max_tokens=4000, ignore_eos=True))
        await session.until(lambda: session.token_ids(1))
        started.send_signal(signal.SIGTERM)
        await session.until(lambda: session.heard("drain_requested"))
        started.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            assert await started.wait() == 128 + signal.SIGINT


@pytest.mark.parametrize("after_tokens", ["0", "20"])
async def test_a_dead_engine_ends_it_for_a_supervisor_to_see(after_tokens: str) -> None:
    faults = ("--engine.simulated.fault.kind", "die", "--engine.simulated.fault.after-tokens", after_tokens)
    async with scripted_scheduler() as scheduler, process(scheduler, *faults) as started:
        session = await scheduler.session()
        if after_tokens != "0":
            await session.ready()
            session.assign(1, sampling=common_pb2.SamplingParams(temperature=0, max_tokens=80, ignore_eos=True))
        async with asyncio.timeout(10):
            assert await started.wait() == 4
        assert started.stderr is not None
        assert "the engine died: injected death" in (await started.stderr.read()).decode()
        assert session.heard("goodbye")


async def test_json_log_lines_name_the_instance() -> None:
    async with scripted_scheduler() as scheduler, process(scheduler, "--log-format", "json") as started:
        await (await scheduler.session()).ready()
        assert started.stderr is not None
        async with asyncio.timeout(10):
            line = (await started.stderr.readline()).decode()
        assert '"instance": "one"' in line
