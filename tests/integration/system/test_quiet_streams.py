"""Streams on which nothing comes for long: a request that waits for an instance, an executor whose engine starts."""

from __future__ import annotations

import asyncio

import grpc

from sage.controlplane.v1 import inference_pb2, inference_pb2_grpc
from tests.integration.system.local_fleet import MODEL, LocalFleet

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
