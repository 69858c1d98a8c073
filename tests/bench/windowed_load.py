"""Requests per second of a server that is kept busy, counted while the load is steady.

A request counts by the share of its messages that come within the window: requests that start together end together,
and whole ones would make a wave more or less of a few hundred.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import grpc

from sage.controlplane.v1 import inference_pb2
from tests.bench.workload import Workload

CALL_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    after_s: float  # from the start of the load
    for_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    requests: int  # all there were
    per_s: float  # within the window


class WindowedLoad:
    """As many requests at any time as ``workload`` has streams, of its length on average, until the window is over."""

    def __init__(self, channel: grpc.aio.Channel, workload: Workload, window: Window) -> None:
        self._generate: grpc.aio.UnaryStreamMultiCallable[inference_pb2.GenerateRequest, bytes] = channel.unary_stream(
            "/sage.controlplane.v1.InferenceService/Generate",
            request_serializer=inference_pb2.GenerateRequest.SerializeToString,
            response_deserializer=None,  # the reader must not be what limits the run
        )
        self._workload = workload
        self._window = window
        self._open = self._over = False
        self._requests = 0
        self._counted = 0.0

    async def run(self) -> Served:
        """Raises RuntimeError for a request that is not served as asked, and what the call raises."""
        streams = asyncio.gather(*(self._stream(*each) for each in enumerate(self._workload.prompts())))
        window_s = await self._watch()
        await streams
        return Served(requests=self._requests, per_s=self._counted / window_s)

    async def _watch(self) -> float:
        """Opens and closes the window.  How long it was open, in seconds."""
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._window.after_s)
        self._open, opened_at = True, clock()
        await asyncio.sleep(self._window.for_s)
        self._open, self._over = False, True
        return clock() - opened_at

    async def _stream(self, index: int, prompt: list[int]) -> None:
        mean = self._workload.max_tokens
        draw = random.Random(f"{self._workload.seed}-{index}")
        while not self._over:
            await self._request(prompt, draw.randint(max(1, mean // 2), mean + mean // 2))

    async def _request(self, prompt: list[int], length: int) -> None:
        request = inference_pb2.GenerateRequest()
        request.spec.tokens.ids.extend(prompt)
        request.spec.sampling.max_tokens = length
        request.spec.sampling.ignore_eos = True
        request.spec.sampling.temperature = 0.0
        messages = within = 0
        last = b""
        async for message in self._generate(request, timeout=CALL_TIMEOUT_S):
            last = message
            messages += 1
            within += self._open
        if inference_pb2.GenerateResponse.FromString(last).finished.usage.completion_tokens != length:
            raise RuntimeError("a request did not finish")
        self._requests += 1
        self._counted += within / messages
