"""Many short requests, one after the other in each stream: over Generate, a call each, and over one session."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from itertools import count

import grpc

from sage.controlplane.v1 import inference_pb2, inference_pb2_grpc
from sage_wire.protocol import PROTOCOL_VERSION
from tests.bench.workload import VOCABULARY, Workload

CALL_TIMEOUT_S = 60.0
ACKNOWLEDGE_EVERY = 8  # frames


async def over_generate(channel: grpc.aio.Channel, workload: Workload, requests: int) -> float:
    """Run this many requests, ``workload.streams`` at a time.  Wall seconds."""
    generate: grpc.aio.UnaryStreamMultiCallable[inference_pb2.GenerateRequest, bytes] = channel.unary_stream(
        "/sage.controlplane.v1.InferenceService/Generate",
        request_serializer=inference_pb2.GenerateRequest.SerializeToString,
        response_deserializer=None,  # the reader must not be what limits the run
    )
    waiting = _requests(workload, requests)

    async def stream() -> None:
        for request in waiting:
            last = b""
            async for message in generate(request, timeout=CALL_TIMEOUT_S):
                last = message
            _check(inference_pb2.GenerateResponse.FromString(last).finished, workload)

    started = time.perf_counter()
    await asyncio.gather(*(stream() for _ in range(workload.streams)))
    return time.perf_counter() - started


async def over_session(channel: grpc.aio.Channel, workload: Workload, requests: int) -> float:
    """Run this many requests over one session, ``workload.streams`` at a time.  Wall seconds."""
    waiting, handles = _requests(workload, requests), count(1)
    started = time.perf_counter()
    call = inference_pb2_grpc.InferenceServiceStub(channel).Session(timeout=2 * CALL_TIMEOUT_S)
    await call.write(inference_pb2.SessionRequest(open=inference_pb2.Open(protocol_version=PROTOCOL_VERSION)))
    room, left = workload.streams, requests
    while left:
        message = inference_pb2.SessionRequest()
        for request, handle in zip((next(waiting, None) for _ in range(room)), handles, strict=False):
            if request is not None:
                message.submit.add(handle=handle, request=request)
        answer = await _next_frame(call, message)
        for finished in answer.finished:
            _check(finished.finished, workload)
        if answer.failed:
            raise RuntimeError(f"{answer.failed[0].status}")
        room = len(answer.finished)
        left -= room
    wall_s = time.perf_counter() - started
    await call.write(inference_pb2.SessionRequest(bye=True))
    await call.read()
    return wall_s


async def _next_frame(call: grpc.aio.StreamStreamCall[inference_pb2.SessionRequest, inference_pb2.SessionResponse],
                      message: inference_pb2.SessionRequest) -> inference_pb2.SessionFrame:  # fmt: skip
    """Write what is to be written, and return the next frame."""
    if message.submit:
        await call.write(message)
    while True:
        answer = await call.read()
        assert isinstance(answer, inference_pb2.SessionResponse), "the session ended"
        if answer.HasField("frame"):
            break
    if answer.frame.number % ACKNOWLEDGE_EVERY == 0:
        await call.write(inference_pb2.SessionRequest(acknowledged=answer.frame.number))
    return answer.frame


def _requests(workload: Workload, requests: int) -> Iterator[inference_pb2.GenerateRequest]:
    draw = random.Random(workload.seed)
    for _ in range(requests):
        request = inference_pb2.GenerateRequest()
        request.spec.tokens.ids.extend(draw.choices(VOCABULARY, k=workload.prompt_tokens))
        request.spec.sampling.max_tokens = workload.max_tokens
        request.spec.sampling.ignore_eos = True
        request.spec.sampling.temperature = 0.0
        yield request


def _check(finished: inference_pb2.Finished, workload: Workload) -> None:
    if finished.usage.completion_tokens != workload.max_tokens:
        raise RuntimeError("a request did not finish")
