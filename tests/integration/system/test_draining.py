"""Leaving in order: what runs is finished, nothing new comes, then it is over."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from executor_svc.runtime.engine_port import Sampling
from sage_client import (
    AsyncStream,
    InstanceNotFoundError,
    InstanceState,
    InvalidStateError,
    NoInstanceError,
    SageError,
    Tokens,
    TryAgainError,
)
from tests.integration.system.local_fleet import LocalFleet
from tests.integration.system.refusals import refused
from tests.integration.system.test_bad_input import request
from tests.support.eventually import eventually
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens


async def running(stream: AsyncStream) -> None:
    while not isinstance(await anext(stream), Tokens):
        pass


async def test_a_drained_instance_finishes_what_it_has_and_gets_nothing_new(fleet: LocalFleet) -> None:
    for name in ("a", "b"):
        await fleet.add(name)
    stream = fleet.client.generate("Once", temperature=0, max_tokens=80, preferred_instance="a")
    await running(stream)
    drained = await fleet.client.drain_instance("a", reason="maintenance")
    assert (drained.state, drained.state_reason) == (InstanceState.DRAINING, "maintenance")
    others = [await fleet.client.generate("Once", max_tokens=2).result() for _ in range(6)]
    assert {each.instance_id for each in others} == {"b"}
    done = await stream.result()
    assert_tokens(done.token_ids, (await answer("Once", Sampling(temperature=0, max_tokens=80))).token_ids)
    assert done.attempts == 1
    assert (await fleet.until("a", InstanceState.DRAINED)).assigned == 0


async def test_resume_takes_a_drain_back(fleet: LocalFleet) -> None:
    executor = await fleet.add("one")
    await fleet.client.drain_instance("one")
    await fleet.until("one", InstanceState.DRAINED)
    with pytest.raises(NoInstanceError, match="1 drained"):
        await fleet.client.generate("Once", max_tokens=2).result()
    assert (await fleet.client.resume_instance("one")).state is InstanceState.READY
    assert (await fleet.client.generate("Once", max_tokens=2).result()).instance_id == "one"
    assert executor.running


async def test_a_drain_by_an_operator_outlives_the_executor(fleet: LocalFleet) -> None:
    executor = await fleet.add("one")
    await fleet.client.drain_instance("one")
    executor.terminate()
    assert await executor.exit_status() == 0
    executor.start()
    await fleet.until("one", InstanceState.DRAINED)
    await fleet.client.resume_instance("one")
    assert (await fleet.client.generate("Once", max_tokens=2).result()).instance_id == "one"


async def test_only_what_is_there_can_be_drained_or_resumed(fleet: LocalFleet) -> None:
    executor = await fleet.add("one")
    for call in (fleet.client.drain_instance, fleet.client.resume_instance, fleet.client.get_instance):
        with pytest.raises(InstanceNotFoundError, match="there are: one"):
            await call("two")
    executor.terminate()
    await executor.exit_status()
    await fleet.until("one", InstanceState.LOST)
    with pytest.raises(InvalidStateError, match="lost"):
        await fleet.client.drain_instance("one")


async def test_sigterm_drains_an_executor_and_its_streams_complete(fleet: LocalFleet) -> None:
    leaving, _ = await fleet.add("a"), await fleet.add("b")
    prompts = [f"Story {n}" for n in range(4)]
    streams = [
        fleet.client.generate(prompt, temperature=0, max_tokens=80, preferred_instance="a") for prompt in prompts
    ]
    await asyncio.gather(*(running(stream) for stream in streams))
    leaving.terminate()
    await fleet.until("a", InstanceState.DRAINING)
    assert (await fleet.client.generate("Once", max_tokens=2).result()).instance_id == "b"
    for prompt, stream in zip(prompts, streams, strict=True):
        done = await stream.result()
        wanted = await answer(prompt, Sampling(temperature=0, max_tokens=80))
        assert_tokens(done.token_ids, wanted.token_ids, prompt)
        assert done.attempts == 1, "nothing had to move"
    assert await leaving.exit_status() == 0
    assert leaving.engine.load().unfinished == 0
    assert "SIGTERM" in (await fleet.until("a", InstanceState.LOST)).state_reason


async def test_what_does_not_end_in_time_is_given_back_and_goes_on_elsewhere(fleet: LocalFleet) -> None:
    leaving = await fleet.add("a", settings={"drain_timeout_s": 0.2})
    await fleet.add("b")
    stream = fleet.client.generate("Once", temperature=0, max_tokens=300, preferred_instance="a")
    await running(stream)
    leaving.terminate()
    done = await stream.result()
    assert_tokens(done.token_ids, (await answer("Once", Sampling(temperature=0, max_tokens=300))).token_ids)
    assert [d.instance_id for d in done.decisions] == ["a", "b"]
    assert await leaving.exit_status() == 0


async def test_a_scheduler_that_stops_lets_running_requests_finish_and_refuses_new_ones(fleet: LocalFleet) -> None:
    await fleet.add("one")
    stream = fleet.client.generate("Once", temperature=0, max_tokens=80)
    await running(stream)
    channel = fleet.channel()
    stopping = asyncio.create_task(fleet.stop_scheduler())

    async def refusing() -> bool:
        try:
            await fleet.client.generate("Late", max_tokens=1).result()
        except TryAgainError:
            return True
        return False

    await eventually(refusing, what="the scheduler to refuse")
    found = await refused(channel, request())
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    done = await stream.result()
    assert_tokens(done.token_ids, (await answer("Once", Sampling(temperature=0, max_tokens=80))).token_ids)
    await asyncio.wait_for(stopping, 5)


async def test_a_scheduler_that_cannot_wait_longer_ends_what_is_left_with_a_word() -> None:
    async with LocalFleet(drain_timeout_s=0.2) as fleet:
        executor = await fleet.add("one")
        stream = fleet.client.generate("Once", max_tokens=5_000)
        await running(stream)
        stopping = asyncio.create_task(fleet.stop_scheduler())
        with pytest.raises(SageError) as caught:
            await asyncio.wait_for(stream.result(), 8)
        assert caught.value.reason == "SHUTTING_DOWN"
        await stopping
        await eventually(lambda: executor.engine.load().unfinished == 0, what="the engine to let go")
