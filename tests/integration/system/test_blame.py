"""A request that ends engines, executors that leave in order, attempts that are lost: only the culprit pays."""

from __future__ import annotations

import asyncio

import pytest

from executor_svc.engine.simulated.engine import SimulatedEngine
from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.engine.simulated.sequence import Sequence
from executor_svc.runtime.engine_port import EngineRequest
from sage.controlplane.v1 import inference_pb2, inference_pb2_grpc
from sage_client import AsyncStream, GenerationFailedError, NoInstanceError
from tests.integration.system.local_fleet import LocalFleet
from tests.support.eventually import eventually


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a request that ends every engine it runs on."""
    plain = SimulatedEngine._admit

    def admit(self: SimulatedEngine, request: EngineRequest) -> Sequence:
        if "poison" in request.engine_request_id:
            self.inject(Fault(kind=FaultKind.DIE))
        return plain(self, request)

    monkeypatch.setattr(SimulatedEngine, "_admit", admit)
    return "poison"


async def until_token(stream: AsyncStream, index: int) -> None:
    while stream.next_token < index:
        await anext(stream)


async def test_a_request_that_ends_engines_is_quarantined_and_all_others_finish(poison: str) -> None:
    async with LocalFleet() as fleet:
        names = [f"e{i}" for i in range(5)]
        for name in names:
            await fleet.add(name, step_base_s=0.005)
        innocent = [
            fleet.client.generate(f"story {n}", max_tokens=300, temperature=0, preferred_instance=n) for n in names
        ]
        await asyncio.gather(*(until_token(stream, 2) for stream in innocent))
        with pytest.raises(GenerationFailedError, match="quarantined"):
            await fleet.client.generate("x", request_id=poison, max_tokens=4).result()
        done = await asyncio.gather(*(stream.result() for stream in innocent))
        assert [len(each.token_ids) for each in done] == [300] * 5
        assert sum(executor.running for executor in fleet.executors.values()) == 2
        story = await fleet.client.explain(poison)
        assert any(entry.event == "quarantined" for entry in story.history)


async def test_orderly_restarts_do_not_end_a_long_request() -> None:
    async with LocalFleet() as fleet:
        for i in range(7):
            await fleet.add(f"e{i}", step_base_s=0.005, settings={"drain_timeout_s": 0.05})
        stream = fleet.client.generate("Once", max_tokens=600, temperature=0)
        await until_token(stream, 2)
        running = asyncio.ensure_future(stream.result())
        for _ in range(6):
            [live] = fleet.scheduler.control.requests
            await eventually(lambda live=live: live.state.value == "running", what="the request to run")  # type: ignore[misc]
            executor = fleet.executors[live.placements[-1].decision.instance_id]
            executor.terminate()
            await executor.exit_status()
        done = await running
        assert len(done.token_ids) == 600
        assert done.attempts == 7


async def test_an_id_that_ended_unavailable_is_served_when_an_instance_is_back() -> None:
    async with LocalFleet(queue={"orphan_timeout_s": 0.3}) as fleet:
        a = await fleet.add("a", step_base_s=0.003)
        stream = fleet.client.generate("Once", request_id="r", max_tokens=200)
        await until_token(stream, 5)
        a.engine.inject(Fault(kind=FaultKind.DIE))
        await a.exit_status()
        with pytest.raises(NoInstanceError):
            await stream.result()
        a.start()
        await eventually(
            lambda: bool(fleet.scheduler.control.scheduler.ready_instances("sim")), what="a to be ready again"
        )
        done = await fleet.client.generate("Once", request_id="r", max_tokens=200).result()
        assert len(done.token_ids) == 200


async def test_the_cost_holds_what_a_lost_attempt_took() -> None:
    async with LocalFleet() as fleet:
        for name in ("a", "b"):
            await fleet.add(name, step_base_s=0.01, settings={"price_per_hour": 3600.0})
        stream = fleet.client.generate("Once", max_tokens=100, temperature=0, preferred_instance="a")
        await until_token(stream, 90)
        fleet.executors["a"].engine.inject(Fault(kind=FaultKind.DIE))
        done = await stream.result()
        assert done.attempts == 2
        assert done.cost > 0.8, "of about 1 s at a price of 1 a second, the lost attempt took nine tenths"


async def test_a_position_in_a_request_that_nobody_knows_is_not_found() -> None:
    async with LocalFleet() as fleet:
        await fleet.add("a")
        stub = inference_pb2_grpc.InferenceServiceStub(fleet.channel())
        request = inference_pb2.GenerateRequest(request_id="unknown", after_token=8)
        request.spec.text = "Once"
        call = stub.Generate(request)
        assert (await call.code()).name == "NOT_FOUND"
        assert len(fleet.scheduler.control.requests) == 0
