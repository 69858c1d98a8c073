"""What is freed at once: a prompt's message, a refused one, and requests that are in no record any more."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest

from executor_svc.runtime.messages.commands import Assign
from executor_svc.runtime.outputs.attempt_output import AttemptOutput
from sage.controlplane.v1 import inference_pb2, inference_pb2_grpc
from scheduler_svc.control.requests.live_request import LiveRequest
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.support.eventually import eventually


@pytest.fixture(autouse=True)
def _without_the_collector() -> Iterator[None]:
    """The scheduler collects garbage seldom: what only that frees is kept for long."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count(*kinds: type) -> int:
    return sum(isinstance(each, kinds) for each in gc.get_objects())


def messages() -> int:
    return count(inference_pb2.GenerateRequest)


def asking(model: str = "") -> inference_pb2.GenerateRequest:
    tokens = inference_pb2.TokenIds(ids=[700] * 1_000)
    return inference_pb2.GenerateRequest(spec=inference_pb2.GenerationSpec(model=model, tokens=tokens))


async def test_a_running_request_does_not_keep_its_message(fleet: LocalFleet, one: LocalExecutor) -> None:
    stub = inference_pb2_grpc.InferenceServiceStub(fleet.channel())
    request = asking()
    before = messages()
    call = stub.Generate(request)
    await call.read()
    await call.read()
    assert messages() == before
    call.cancel()


async def test_a_refused_request_does_not_keep_its_message(fleet: LocalFleet, one: LocalExecutor) -> None:
    stub = inference_pb2_grpc.InferenceServiceStub(fleet.channel())
    request = asking("unknown")
    before = messages()
    for _ in range(5):
        with suppress(grpc.aio.AioRpcError):
            await stub.Generate(request).read()
    assert messages() == before


async def test_requests_that_ended_leave_nothing_but_the_record() -> None:
    async with LocalFleet(record={"requests": 1}) as fleet:
        await fleet.add("a")
        before, live_before = count(Assign, AttemptOutput), count(LiveRequest)
        for _ in range(5):
            await fleet.client.generate("Once upon a time", max_tokens=20).result()
            cancelled = fleet.client.generate("Once upon a time", max_tokens=4_000)
            while cancelled.next_token < 2:
                await anext(cancelled)
            await cancelled.cancel()
            await cancelled.aclose()
        await eventually(lambda: count(Assign, AttemptOutput) == before, what="the executor to forget them")
        assert count(LiveRequest) == live_before + 1, "the record's"
