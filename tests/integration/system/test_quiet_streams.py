"""Streams on which nothing moves for long: a request that waits for an instance, a client that does not read."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import pytest

from sage.controlplane.v1 import common_pb2, inference_pb2, inference_pb2_grpc
from sage_client import InstanceState
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.transport import events, server, take_limit
from tests.integration.system.local_fleet import MODEL, LocalFleet
from tests.integration.system.refusals import end_of
from tests.support.eventually import eventually

PING_EVERY_MS = 1_100
PINGS = 5  # gRPC ends a connection after the third that it finds one too many


async def test_a_client_that_asks_whether_its_scheduler_is_there_is_not_thrown_out() -> None:
    options = [("grpc.keepalive_time_ms", PING_EVERY_MS), ("grpc.http2.max_pings_without_data", 0)]
    async with LocalFleet() as fleet, grpc.aio.insecure_channel(fleet.address, options=options) as channel:
        request = inference_pb2.GenerateRequest()
        request.spec.model = MODEL
        request.spec.tokens.ids.extend([300] * 8)
        request.spec.sampling.max_tokens = 4
        request.spec.no_instance = inference_pb2.NO_INSTANCE_WAIT
        call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(request)
        ended = asyncio.ensure_future(call.code())
        await asyncio.wait([ended], timeout=(PINGS + 0.5) * PING_EVERY_MS / 1_000)
        assert not ended.done(), f"the stream ended: {await call.code()}, {await call.details()}"
        call.cancel()
        assert await ended is grpc.StatusCode.CANCELLED


async def test_a_connection_that_ended_for_want_of_calls_is_made_again_by_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Executors' connections carry streams and stay; a client's next call does not notice."""
    quick = [(name, 100 if name == "grpc.max_connection_idle_ms" else value) for name, value in server.OPTIONS]
    monkeypatch.setattr(server, "OPTIONS", quick)
    async with LocalFleet() as fleet:
        await fleet.add("one")
        channel = fleet.client._channels._all[0]._channel

        async def idle() -> bool:
            return channel.get_state() is grpc.ChannelConnectivity.IDLE

        for _ in range(3):
            await fleet.client.list_instances()
            await eventually(idle, what="the connection to end")
        result = await fleet.client.generate("Once", max_tokens=3).result()
        assert (result.instance_id, result.attempts) == ("one", 1)
        assert (await fleet.instance("one")).state is InstanceState.READY


def live_requests() -> int:
    gc.collect()
    return sum(type(each) is LiveRequest for each in gc.get_objects())


async def test_a_client_that_takes_nothing_does_not_keep_its_request(
    fleet: LocalFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(take_limit, "TAKE_LIMIT_S", 0.3)
    before = live_requests()  # what failed before may be kept with its traceback
    small = events.tokens

    def large(*of: Any) -> inference_pb2.GenerateResponse:
        response = small(*of)
        response.tokens.text = "x" * 3 * 1024 * 1024  # more than a stream holds for a client that does not read
        return response

    monkeypatch.setattr(events, "tokens", large)
    await fleet.add("one")
    spec = inference_pb2.GenerationSpec(text="x", sampling=common_pb2.SamplingParams(max_tokens=4_000))
    request = inference_pb2.GenerateRequest(request_id="r", spec=spec)
    call = inference_pb2_grpc.InferenceServiceStub(fleet.channel()).Generate(request)
    requests = fleet.scheduler.control.requests
    await eventually(lambda: len(requests) == 1)
    await eventually(lambda: len(requests) == 0)
    requests._ended.clear()

    await eventually(lambda: live_requests() <= before, what="the request to be forgotten")
    assert not call.done(), "the message that waits is in the way of a status"
    assert (await end_of(call)).reason == "LIMIT_REACHED"
