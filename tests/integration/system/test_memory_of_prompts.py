"""What is kept of a prompt's message: nothing once it was converted, and nothing of a refused one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest

from sage.controlplane.v1 import inference_pb2, inference_pb2_grpc
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet


@pytest.fixture(autouse=True)
def _without_the_collector() -> Iterator[None]:
    """The scheduler collects garbage seldom: what only that frees is kept for long."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def messages() -> int:
    return sum(isinstance(each, inference_pb2.GenerateRequest) for each in gc.get_objects())


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
