"""The lease of the KV ends before the decode leg is heard of: what is fetched then would be another prompt's."""

from __future__ import annotations

import asyncio
import signal

import psutil
import pytest

from sage_client import Completion, PairState
from tests.support.eventually import eventually
from tests.vllm.pd_system.checked_stream import CheckedStream
from tests.vllm.pd_system.engine_settings import DECODE, KV_LEASE_S, PREFILL
from tests.vllm.pd_system.pd_fleet import PdFleet, is_split

PREFILL_S = (
    3.0  # of the first of four prompts of 3000 tokens.  With the lease shorter than gRPC waits for a stopped peer
)
TURNS = 4  # in one of which the prefills are still computed when their executor is stopped

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]


def stop(fleet: PdFleet, name: str) -> psutil.Process:
    """The executor alone: its engine runs on."""
    process = psutil.Process(fleet.executor(name).pid)
    process.send_signal(signal.SIGSTOP)
    return process


async def all_prefilled(fleet: PdFleet, streams: list[CheckedStream]) -> bool:
    return all([await fleet.history(stream.stream.request_id, "prefilled") for stream in streams])


async def computing(fleet: PdFleet, name: str) -> bool:
    there = await fleet.client.get_instance(name)
    return there.running > 0


async def test_a_decode_executor_that_was_stopped_meanwhile_does_not_read_it(fleet: PdFleet) -> None:
    """Its engine lives, its peer lives, its Assign says that the whole lease is left: only the scheduler can know."""
    fallbacks = await fleet.fallbacks()
    prompts = [fleet.prompt(700 + n) for n in range(4)]
    decode = stop(fleet, DECODE)
    try:
        streams = [fleet.stream(each) for each in prompts]
        await asyncio.gather(*(stream.accepted() for stream in streams))
        await eventually(lambda: all_prefilled(fleet, streams))
        await asyncio.sleep(KV_LEASE_S + 0.5)
    finally:
        decode.send_signal(signal.SIGCONT)
    done = [await stream.complete() for stream in streams]
    assert all(is_split(each) for each in done)
    whys = [await fallbacks_of(fleet, each) for each in done]
    for first, *_ in whys:
        assert "after the lease of its KV; prefill runs again" in first
    assert await fleet.fallbacks() == fallbacks + sum(map(len, whys))
    await fleet.nothing_held()
    await fleet.check(prompts, done)


async def fallbacks_of(fleet: PdFleet, done: Completion) -> list[str]:
    """Why its prefill ran again, or was computed at the decode side, each time.

    On a busy machine a second lease may end too, or the stopped executor's connection.
    """
    whys = await fleet.history(done.request_id, "fallback")
    late = [why for why in whys if "kv_lease_expired" in why or "after the lease of its KV" in why]
    assert done.attempts == 1 + len(late)
    assert all("computes the prompt itself" in why for why in whys if why not in late), whys
    return whys


async def stopped_meanwhile(fleet: PdFleet, prompts: list[list[int]]) -> list[Completion]:
    """Stop the prefill executor while its engine computes these prompts, for longer than the lease of their KV."""
    streams = [fleet.stream(each) for each in prompts]
    await asyncio.gather(*(stream.accepted() for stream in streams))
    await eventually(lambda: computing(fleet, PREFILL))
    prefill = stop(fleet, PREFILL)
    try:
        await asyncio.sleep(PREFILL_S + KV_LEASE_S)
    finally:
        prefill.send_signal(signal.SIGCONT)
    done = [await stream.complete() for stream in streams]
    await fleet.nothing_held()
    await fleet.pair_is(PairState.USABLE)
    await fleet.check(prompts, done)
    return done


async def test_a_prefill_executor_that_was_stopped_meanwhile_does_not_offer_it(fleet: PdFleet) -> None:
    """Its engine ends the prefill and keeps the KV for the lease; the executor reads of that when the lease is over."""
    before = await fleet.fallbacks()
    whys: list[str] = []
    for turn in range(TURNS):
        done = await stopped_meanwhile(fleet, [fleet.prompt(3000 + 10 * turn + n) for n in range(4)])
        assert all(is_split(each) for each in done)
        whys += [why for each in done for why in await fallbacks_of(fleet, each)]
        if any("kv_lease_expired" in why for why in whys):
            break
    else:
        pytest.fail(f"every time all were over before it was stopped: {whys}")
    assert await fleet.fallbacks() == before + len(whys)
