"""Clients of the control plane: the SDK as an application uses it, and a bare reader that costs little."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import grpc

from sage.controlplane.v1 import inference_pb2, inference_pb2_grpc
from sage_client import AsyncClient, Tokens
from sage_wire.protocol import PROTOCOL_VERSION
from tests.bench.workload import Workload

RUN_TIMEOUT_S = 120.0  # of one workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One workload, run to its end."""

    wall_s: float  # from the first request to the last stream's end
    tokens: int  # output tokens received
    messages: int  # that carried them


async def run_with_sdk(client: AsyncClient, workload: Workload) -> Run:
    """Every event decoded and checked, as applications get them."""

    async def one(requests: list[tuple[list[int], int]]) -> tuple[int, int]:
        tokens = messages = 0
        for prompt, max_tokens in requests:
            stream = client.generate(
                token_ids=prompt,
                max_tokens=max_tokens,
                ignore_eos=True,
                temperature=0.0,
                timeout=RUN_TIMEOUT_S,
            )
            async for event in stream:
                if isinstance(event, Tokens):
                    tokens += len(event.token_ids)
                    messages += 1
        return tokens, messages

    requests = workload.requests()
    started = time.perf_counter()
    counts = await asyncio.gather(*map(one, requests))
    return _run(workload, time.perf_counter() - started, counts)


async def run_bare(channel: grpc.aio.Channel, workload: Workload, run_name: str) -> Run:
    """Messages are counted and left undecoded, but for the last of each stream: the reader must not be what
    limits the run when it shares the machine with what is measured.
    """
    generate: grpc.aio.UnaryStreamMultiCallable[inference_pb2.GenerateRequest, bytes] = channel.unary_stream(
        "/sage.controlplane.v1.InferenceService/Generate",
        request_serializer=inference_pb2.GenerateRequest.SerializeToString,
        response_deserializer=None,
    )

    async def one(index: int, prompt: list[int]) -> tuple[int, int]:
        request = inference_pb2.GenerateRequest()
        _fill(request, workload, prompt, f"{run_name}-{index}")
        last, count = b"", 0
        async for message in generate(request, timeout=RUN_TIMEOUT_S):
            last = message
            count += 1
        finished = inference_pb2.GenerateResponse.FromString(last).finished
        return finished.usage.completion_tokens, count - NOT_TOKENS

    started = time.perf_counter()
    counts = await asyncio.gather(*(one(index, prompt) for index, prompt in enumerate(workload.prompts())))
    return _run(workload, time.perf_counter() - started, counts)


async def run_session(channel: grpc.aio.Channel, workload: Workload, run_name: str) -> Run:
    """All requests over one session.  Its frames are decoded, and what they carry is counted and dropped."""
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    started = time.perf_counter()
    call = stub.Session(timeout=RUN_TIMEOUT_S)
    await call.write(_submissions(workload, run_name))
    left, frames, counts = workload.streams, 0, []
    while left:
        message = await call.read()
        assert isinstance(message, inference_pb2.SessionResponse)
        frame = message.frame
        left -= len(frame.finished)
        counts += [(each.finished.usage.completion_tokens, 0) for each in frame.finished]
        if frame.failed:
            raise RuntimeError(f"{frame.failed[0].status}")
        frames += 1
        if frame.number % ACKNOWLEDGE_EVERY == 0:
            await call.write(inference_pb2.SessionRequest(acknowledged=frame.number))
    wall_s = time.perf_counter() - started
    await call.write(inference_pb2.SessionRequest(bye=True))
    await call.read()
    return _run(workload, wall_s, [*counts, (0, frames)])


def _submissions(workload: Workload, run_name: str) -> inference_pb2.SessionRequest:
    message = inference_pb2.SessionRequest(open=inference_pb2.Open(protocol_version=PROTOCOL_VERSION))
    for index, prompt in enumerate(workload.prompts()):
        submit = message.submit.add(handle=index + 1)
        _fill(submit.request, workload, prompt, f"{run_name}-{index}")
    return message


def _fill(request: inference_pb2.GenerateRequest, workload: Workload, prompt: list[int], request_id: str) -> None:
    request.request_id = request_id
    request.spec.tokens.ids.extend(prompt)
    request.spec.sampling.max_tokens = workload.max_tokens
    request.spec.sampling.ignore_eos = True
    request.spec.sampling.temperature = 0.0


ACKNOWLEDGE_EVERY = 8  # frames

NOT_TOKENS = 3  # messages of a stream that carry none: Accepted, Scheduled, Finished


def _run(workload: Workload, wall_s: float, counts: list[tuple[int, int]]) -> Run:
    tokens = sum(count for count, _ in counts)
    if tokens != workload.output_tokens:
        raise RuntimeError(f"{tokens} tokens arrived of {workload.output_tokens}")
    return Run(wall_s=wall_s, tokens=tokens, messages=sum(count for _, count in counts))
