"""kill -9 of either end while streams run: every one completes, and the pair is used again once the end is back."""

from __future__ import annotations

import asyncio
import signal

import psutil
import pytest

from sage_client import Completion, InstanceState, PairState, Phase
from tests.support.eventually import eventually
from tests.support.service_process import ServiceProcess
from tests.vllm.pd_system.checked_stream import CheckedStream
from tests.vllm.pd_system.engine_settings import DECODE, PREFILL, UP_WITHIN_S
from tests.vllm.pd_system.pd_fleet import WITHIN_LEASE_S, PdFleet, is_split

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

TOKENS = 96


async def kill_all_of_it(executor: ServiceProcess) -> None:
    """The executor, its engine core and whatever else it started, all at once."""
    started = executor.descendants()
    executor.kill()
    for process in started:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    assert await executor.ended() == -9
    await executor.alone()


async def back_again(fleet: PdFleet, name: str) -> None:
    """Started by whoever supervises it."""
    fleet.executor(name).start()
    await fleet.processes.until(name, InstanceState.READY, within_s=UP_WITHIN_S)
    await fleet.pair_is(PairState.USABLE)
    done = await fleet.complete([fleet.prompt(400 + n) for n in range(4)])
    assert all(is_split(each) and each.attempts == 1 for each in done)


async def told(fleet: PdFleet, done: list[Completion], event: str) -> list[str]:
    return [detail for each in done for detail in await fleet.history(each.request_id, event)]


async def prefilled(fleet: PdFleet, streams: list[CheckedStream], least: int) -> bool:
    """Whether so many of them have blocks to fetch."""
    found = [await fleet.history(stream.stream.request_id, "prefilled") for stream in streams]
    return sum(map(len, found)) >= least


async def test_kill_9_of_the_prefill_end(fleet: PdFleet) -> None:
    """Some streams decode by then, some have blocks to fetch, some wait for their prefill."""
    fallbacks = await fleet.fallbacks()
    prompts = [fleet.prompt(1500 + n) for n in range(16)]
    streams = [fleet.stream(each, max_tokens=TOKENS) for each in prompts]
    await asyncio.gather(*(stream.until_token(0) for stream in streams[:4]))
    decode = psutil.Process(fleet.executor(DECODE).pid)
    decode.send_signal(signal.SIGSTOP)  # so that it fetches nothing until the other end is dead
    try:
        came = [await fleet.history(stream.stream.request_id, "prefilled") for stream in streams]
        await eventually(lambda: prefilled(fleet, streams, sum(map(len, came)) + 3))
        await kill_all_of_it(fleet.executor(PREFILL))
    finally:
        decode.send_signal(signal.SIGCONT)
    done = await asyncio.gather(*(stream.complete() for stream in streams))
    assert {each.instance_id for each in done} == {DECODE}
    fell_back = await told(fleet, done, "fallback") + await told(fleet, done, "requeued")
    assert len(fell_back) >= 8, "those that had no KV yet"
    assert sum("could not be fetched and was computed here" in each for each in fell_back) >= 3
    assert any("computes the prompt itself" in each for each in fell_back)
    assert await fleet.fallbacks() >= fallbacks + len(fell_back)
    conditions = (await fleet.client.get_prefill_decode()).conditions
    assert any("takes prefill legs" in condition for condition in conditions)
    await fleet.nothing_held(DECODE, within_s=WITHIN_LEASE_S)
    await back_again(fleet, PREFILL)
    await fleet.check(prompts, done)


async def test_kill_9_of_the_decode_executor(fleet: PdFleet) -> None:
    """Its engine core has to notice by itself."""
    failovers = await fleet.failovers()
    prompts = [fleet.prompt(700 + n) for n in range(16)]
    streams = [fleet.stream(each, max_tokens=TOKENS) for each in prompts]
    await asyncio.gather(*(stream.until_token(2) for stream in streams[:8]))
    victim = fleet.executor(DECODE)
    victim.kill()
    done = await asyncio.gather(*(stream.complete() for stream in streams))
    assert await victim.ended() == -9
    await victim.alone()
    moved = [each for each in done if each.attempts > 1]
    assert len(moved) >= 8, "those that decoded"
    assert {each.instance_id for each in moved} == {PREFILL}
    assert all(each.decisions[-1].phase is Phase.HYBRID for each in moved)
    assert any("decode" in why and "lost" in why for why in await told(fleet, moved, "requeued"))
    assert await fleet.failovers() >= failovers + len(moved)
    await fleet.nothing_held(PREFILL, within_s=WITHIN_LEASE_S)
    await back_again(fleet, DECODE)
    await fleet.check(prompts, done)
