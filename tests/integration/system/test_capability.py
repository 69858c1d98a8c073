"""Instances that differ under one model's name, connections that blink, models that load: nobody else waits."""

from __future__ import annotations

import asyncio

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.runtime.engine_port import Sampling
from sage_client import AsyncStream, InstanceState, ModelChangedError, NoInstanceError
from tests.integration.system.local_fleet import LocalFleet
from tests.support.eventually import eventually
from tests.support.network_proxy import NetworkProxy
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens


async def until_token(stream: AsyncStream, index: int) -> None:
    while stream.next_token < index:
        await anext(stream)


async def test_requests_for_an_adapter_that_died_delay_no_other() -> None:
    async with LocalFleet(queue={"orphan_timeout_s": 2.0}) as fleet:
        await fleet.add("b")
        a = await fleet.add("a", adapters=("legal",), step_base_s=0.01, max_running=64)
        legal = [fleet.client.generate(f"L{i}", adapter="legal", max_tokens=2000, temperature=0) for i in range(20)]
        await asyncio.gather(*(until_token(stream, 1) for stream in legal))
        a.engine.inject(Fault(kind=FaultKind.DIE))
        await a.exit_status()
        done = await fleet.client.generate("plain", max_tokens=5, temperature=0).result()
        assert done.instance_id == "b"
        ends = await asyncio.gather(*(stream.result() for stream in legal), return_exceptions=True)
        assert {type(end) for end in ends} == {NoInstanceError}


@pytest.mark.parametrize("order", [("big", "small"), ("small", "big")])
async def test_valid_means_that_some_instance_serves_it(order: tuple[str, str]) -> None:
    async with LocalFleet() as fleet:
        options = {"big": {"adapters": ("legal",), "max_model_len": 8192}, "small": {"max_model_len": 512}}
        for name in order:
            await fleet.add(name, **options[name])  # type: ignore[arg-type]
        client = fleet.client
        assert (await client.generate("x", adapter="legal", max_tokens=4).result()).instance_id == "big"
        assert (await client.generate("x", max_tokens=1000, temperature=0).result()).instance_id == "big"


async def test_a_stream_waits_for_its_own_weights_and_then_says_that_they_are_gone() -> None:
    async with LocalFleet(queue={"orphan_timeout_s": 1.0}) as fleet:
        a = await fleet.add("a", step_base_s=0.003)
        await fleet.add("b", answers_as="sim-v2")
        streams = [
            fleet.client.generate("Once", max_tokens=60, temperature=0, preferred_instance="a") for _ in range(2)
        ]
        await asyncio.gather(*(until_token(stream, 20) for stream in streams))
        a.engine.inject(Fault(kind=FaultKind.DIE))
        await a.exit_status()
        a.start()
        done = await streams[0].result()
        wanted = await answer("Once", Sampling(temperature=0, max_tokens=60))
        assert_tokens(done.token_ids, wanted.token_ids, "Once")
        await streams[1].result()
        last = fleet.client.generate("Once", max_tokens=600, temperature=0, preferred_instance="a")
        await until_token(last, 20)
        a.engine.inject(Fault(kind=FaultKind.DIE))
        with pytest.raises(ModelChangedError, match="no instance runs any more"):
            await last.result()


async def test_a_tokenizer_that_made_room_for_others_comes_back() -> None:
    async with LocalFleet() as fleet:
        fleet.scheduler._tokenizers._limit = 2
        await fleet.add("a", model="m1", vocab_size=1024)
        await fleet.add("b", model="m2", vocab_size=2048)
        fleet.launch("c", model="m3", vocab_size=4096)
        await fleet.until("c", InstanceState.READY)
        for model in ("m3", "m1", "m2", "m3", "m1"):
            done = await fleet.client.generate("x", model=model, max_tokens=3).result()
            assert len(done.token_ids) == 3


async def test_a_connection_that_blinks_refuses_no_request() -> None:
    async with LocalFleet() as fleet, NetworkProxy(fleet.scheduler.port) as network:
        await fleet.add("a", through=network.address)
        streams = []
        for n in range(60):
            streams.append(asyncio.ensure_future(fleet.client.generate(f"x{n}", max_tokens=2).result()))
            if n % 20 == 10:
                await network.cut()
            await asyncio.sleep(0.005)
        done = await asyncio.gather(*streams)
        assert [len(each.token_ids) for each in done] == [2] * 60


async def test_requests_that_wait_for_a_model_leave_the_door_open_for_others() -> None:
    async with LocalFleet(queue={"arriving_limit": 5}, models={"loading": {}}) as fleet:
        await fleet.add("a")
        waiting = [fleet.client.generate("x", model="loading", no_instance="wait", max_tokens=2) for _ in range(5)]
        await eventually(lambda: fleet.scheduler.control.models.waiting == 5, what="five requests to wait")
        done = await fleet.client.generate("x", model="sim", max_tokens=2).result()
        assert done.instance_id == "a"
        for stream in waiting:
            await stream.aclose()
