"""A client's session by the generated stub: every message can be chosen."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Self

import grpc

from sage.controlplane.v1 import common_pb2, inference_pb2, inference_pb2_grpc
from sage_wire.protocol import PROTOCOL_VERSION
from tests.support.frame_reader import FrameReader, HandleEvents

WITHIN_S = 20.0


class RawSession:
    """One stream.  Its frames are read and acknowledged by a task, unless ``reads`` is cleared."""

    def __init__(self, channel: grpc.aio.Channel, *, acknowledges: bool = True) -> None:
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)
        self.call = self._stub.Session()
        self.frames = FrameReader()
        self.opened = inference_pb2.Opened()
        self.pongs: list[int] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.error: grpc.aio.AioRpcError | None = None
        self._acknowledges = acknowledges
        self._changed = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.say(open=inference_pb2.Open(protocol_version=PROTOCOL_VERSION))
        first = await self.call.read()
        assert isinstance(first, inference_pb2.SessionResponse)
        self.opened = first.opened
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def say(self, **fields: Any) -> None:
        async with self._writing:
            await self.call.write(inference_pb2.SessionRequest(**fields))

    async def submit(self, request_id: str = "", *, text: str = "Once", **options: Any) -> int:
        """Submit a request; return its handle.  ``max_tokens`` and other sampling, ``detached``, ``after``."""
        handle = next(self._numbers)
        own = {name: options.pop(name) for name in ("detached", "after_token", "tenant") if name in options}
        after = options.pop("after", ())
        sampling = common_pb2.SamplingParams(**{"temperature": 0.0, "max_tokens": 20, **options})
        spec = inference_pb2.GenerationSpec(text=text, sampling=sampling)
        request = inference_pb2.GenerateRequest(request_id=request_id, spec=spec, **own)
        await self.say(submit=[inference_pb2.Submit(handle=handle, request=request, after=after)])
        return handle

    async def attach(self, request_id: str, after_token: int = 0) -> int:
        handle = next(self._numbers)
        after = [inference_pb2.ChoicePosition(after_token=after_token)]
        await self.say(attach=[inference_pb2.AttachHandle(handle=handle, request_id=request_id, after=after)])
        return handle

    def of(self, handle: int) -> HandleEvents:
        return self.frames.of(handle)

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S), self._changed:
            await self._changed.wait_for(what)

    async def over(self, *handles: int) -> None:
        """Wait for the ends of handles."""
        await self.until(lambda: all(self.of(handle).over for handle in handles))

    async def status(self) -> grpc.StatusCode:
        """Wait for the end of the stream."""
        async with asyncio.timeout(WITHIN_S):
            return await self.call.code()

    async def _read(self) -> None:
        while True:
            await self.reads.wait()
            try:
                message = await self.call.read()
            except grpc.aio.AioRpcError as error:
                self.error = error
                return
            if not isinstance(message, inference_pb2.SessionResponse):
                return
            await self._take(message)

    async def _take(self, message: inference_pb2.SessionResponse) -> None:
        if message.HasField("frame"):
            self.frames.take(message.frame)
            if self._acknowledges:
                await self.say(acknowledged=message.frame.number)
        if message.pong:
            self.pongs.append(message.pong)
        async with self._changed:
            self._changed.notify_all()
