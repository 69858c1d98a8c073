"""Which executors get several Assigns in one message."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import pytest

from sage.controlplane.v1 import common_pb2, executor_pb2, inference_pb2, inference_pb2_grpc
from sage_wire.protocol import ASSIGN_BATCHES
from tests.unit.transport.served import MODEL, WireExecutor, dialled, registration, serving

REQUESTS = 4  # as many as the executor takes at once


def submit(number: int) -> inference_pb2.Submit:
    spec = inference_pb2.GenerationSpec(
        model=MODEL,
        tokens=inference_pb2.TokenIds(ids=[5, 6]),
        sampling=common_pb2.SamplingParams(max_tokens=4),
    )
    request = inference_pb2.GenerateRequest(spec=spec, request_id=f"r{number}")
    return inference_pb2.Submit(handle=number, request=request)


async def burst(channel: grpc.aio.Channel) -> grpc.aio.Call:
    """Open a session that brings all requests in one message."""
    call = inference_pb2_grpc.InferenceServiceStub(channel).Session()
    submits = [submit(number) for number in range(1, REQUESTS + 1)]
    await call.write(inference_pb2.SessionRequest(open=inference_pb2.Open(), submit=submits))
    return call


async def assigns(executor: WireExecutor) -> list[list[executor_pb2.Assign]]:
    """The Assigns of each message until all requests are there; a lone Assign is a list of its own."""
    found: list[list[executor_pb2.Assign]] = []
    while sum(map(len, found)) < REQUESTS:
        message = await executor.hear()
        if message.HasField("assign"):
            found.append([message.assign])
        elif message.HasField("assigns"):
            found.append(list(message.assigns.assigns))
    return found


@pytest.mark.parametrize(("capabilities", "most"), [((), 1), ((ASSIGN_BATCHES,), REQUESTS)])
async def test_only_an_executor_that_says_so_gets_assigns_together(capabilities: Sequence[str], most: int) -> None:
    async with serving() as scheduler, dialled(scheduler) as channel, dialled(scheduler) as client:
        executor = WireExecutor(channel)
        await executor.whole(registration(capabilities=capabilities))
        session = await burst(client)
        messages = await assigns(executor)
        session.cancel()
    assert sorted(each.request_id for message in messages for each in message) == ["r1", "r2", "r3", "r4"]
    numbers = [each.number for message in messages for each in message]
    assert numbers == sorted(numbers)
    assert max(map(len, messages)) == most
