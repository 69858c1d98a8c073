"""A scheduler that only sends tokens, for measuring clients: no engine, no queue, no checks.

It serves ``Session`` and ``Generate``.  At every beat each running stream gets one token; a session gets those of all
its streams in one frame.

Run as a child: takes the beat in seconds; prints its port.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from sage.controlplane.v1 import common_pb2, decision_pb2, inference_pb2, inference_pb2_grpc
from tests.bench.child import child

LISTENING = "token scheduler: listening on port "
START_TIMEOUT_S = 30.0
WINDOW = 32
TEXT = " tok"
TOKEN = 1234


@asynccontextmanager
async def token_scheduler(step_s: float) -> AsyncIterator[str]:
    """The address of a token scheduler in a process of its own."""
    async with child("token scheduler", "tests.bench.token_scheduler", str(step_s)) as process:
        line = await process.wait_for(LISTENING, START_TIMEOUT_S)
        yield "127.0.0.1:" + re.sub(r"\D", "", line.partition(LISTENING)[2])


class _Beat:
    """Wakes everybody who waits, every ``step_s``."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._next: asyncio.Future[None] | None = None
        self._due = 0.0

    async def wait(self) -> None:
        if self._next is None:
            loop = asyncio.get_running_loop()
            self._next = loop.create_future()
            self._due = max(self._due + self._step_s, loop.time())
            loop.call_at(self._due, self._strike, self._next)
        await asyncio.shield(self._next)

    def _strike(self, beat: asyncio.Future[None]) -> None:
        self._next = None
        beat.set_result(None)


class _Source(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(self, step_s: float) -> None:
        self._beat = _Beat(step_s)

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        yield inference_pb2.GenerateResponse(accepted=_accepted(request))
        yield inference_pb2.GenerateResponse(scheduled=_scheduled(request))
        for index in range(request.spec.sampling.max_tokens):
            await self._beat.wait()
            tokens = inference_pb2.Tokens(
                attempt=common_pb2.Attempt(epoch=1, number=1),
                first_index=index,
                token_ids=[TOKEN],
                text_offset=len(TEXT) * index,
                text=TEXT,
            )
            yield inference_pb2.GenerateResponse(tokens=tokens)
        yield inference_pb2.GenerateResponse(finished=_finished(request.spec.sampling.max_tokens))

    async def Session(
        self, requests: AsyncIterator[inference_pb2.SessionRequest], context: Any
    ) -> AsyncIterator[inference_pb2.SessionResponse]:
        yield inference_pb2.SessionResponse(opened=inference_pb2.Opened(protocol_version=1, epoch=1, window=WINDOW))
        state = _Session()
        reader = asyncio.create_task(state.read(requests))
        try:
            while not reader.done():
                await self._beat.wait()
                if (message := state.message()) is not None:
                    yield message
        finally:
            reader.cancel()


class _Session:
    def __init__(self) -> None:
        self._new: list[inference_pb2.Submit] = []
        self._left: dict[int, int] = {}  # by handle: tokens to come
        self._length: dict[int, int] = {}
        self._sent = self._acknowledged = 0
        self._ping = 0

    async def read(self, requests: AsyncIterator[inference_pb2.SessionRequest]) -> None:
        async for message in requests:
            self._new.extend(message.submit)
            self._acknowledged = message.acknowledged or self._acknowledged
            self._ping = message.ping or self._ping
            for handle in message.leave:
                self._left.pop(handle, None)
            if message.bye:
                return

    def message(self) -> inference_pb2.SessionResponse | None:
        """What a beat brings; None where there is nothing, or the window is full."""
        message = inference_pb2.SessionResponse(pong=self._ping)
        self._ping = 0
        if (self._new or self._left) and self._sent - self._acknowledged < WINDOW:
            self._fill(message.frame)
        return message if message.ByteSize() else None

    def _fill(self, frame: inference_pb2.SessionFrame) -> None:
        self._sent += 1
        frame.number = self._sent
        for submit in self._new:
            frame.accepted.add(handle=submit.handle, accepted=_accepted(submit.request))
            frame.scheduled.add(handle=submit.handle, scheduled=_scheduled(submit.request))
            self._left[submit.handle] = self._length[submit.handle] = submit.request.spec.sampling.max_tokens
        self._new = []
        frame.handles.extend(self._left)
        frame.token_ids.extend([TOKEN] * len(self._left))
        frame.text_lengths.extend([len(TEXT)] * len(self._left))
        frame.text = TEXT * len(self._left)
        for handle in list(self._left):
            self._left[handle] -= 1
            if not self._left[handle]:
                del self._left[handle]
                frame.finished.add(handle=handle, finished=_finished(self._length.pop(handle)))


def _accepted(request: inference_pb2.GenerateRequest) -> inference_pb2.Accepted:
    return inference_pb2.Accepted(request_id=request.request_id, model="source", prompt_tokens=32)


def _scheduled(request: inference_pb2.GenerateRequest) -> inference_pb2.Scheduled:
    decision = decision_pb2.Decision(
        request_id=request.request_id, instance_id="one", policy="fifo", reasons=["the only instance"]
    )
    decision.attempt.epoch = decision.attempt.number = 1
    return inference_pb2.Scheduled(decision=decision)


def _finished(tokens: int) -> inference_pb2.Finished:
    usage = common_pb2.Usage(prompt_tokens=32, completion_tokens=tokens)
    return inference_pb2.Finished(finish_reason=common_pb2.FINISH_REASON_LENGTH, usage=usage, attempts=1)


async def _serve(step_s: float) -> None:
    server = grpc.aio.server()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(_Source(step_s), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.start()
    print(f"{LISTENING}{port}", flush=True)
    await stop.wait()
    await server.stop(grace=None)


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
