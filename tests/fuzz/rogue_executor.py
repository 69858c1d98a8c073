"""An executor that registers properly, is READY, is sent work, and answers with mutated messages on both streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from sage.controlplane.v1 import executor_pb2
from tests.fuzz.call import Outcome
from tests.fuzz.contract_rpcs import Rpc
from tests.fuzz.fuzzer import STREAM_BYTES_SHARE, Case, Fuzzer
from tests.fuzz.plausible_messages import PLAUSIBLE

CONTROL = "/sage.controlplane.v1.ExecutorService/Control"
OUTPUTS = "/sage.controlplane.v1.ExecutorService/Outputs"
STREAM_S = 3.0
ANSWER_S = 1.0  # for Welcome
REPLIES = 400


class RogueExecutor:
    """One session of such an executor, as a script for the fuzzer."""

    def __init__(self, outputs: Rpc) -> None:
        self._outputs = outputs

    async def __call__(self, case: Case, channel: grpc.aio.Channel, fuzzer: Fuzzer) -> None:
        """Run a session to its end and judge both streams."""
        control = _Stream(channel, CONTROL, executor_pb2.ControlResponse, case, fuzzer)
        outputs = _Stream(channel, OUTPUTS, executor_pb2.OutputsResponse, case, fuzzer)
        register = executor_pb2.ControlRequest()
        PLAUSIBLE["sage.controlplane.v1.Register"](register.register, case.dice)
        ready = executor_pb2.ControlRequest()
        PLAUSIBLE["sage.controlplane.v1.EngineStatus"](ready.engine_status, case.dice)
        try:
            await control.write(fuzzer.noted(case, case.rpc, register.SerializeToString()))
            welcome = await control.first()
            if welcome is not None and welcome.HasField("welcome"):
                hello = executor_pb2.OutputsRequest(hello=executor_pb2.Hello(session_id=welcome.welcome.session_id))
                await outputs.write(fuzzer.noted(case, self._outputs, hello.SerializeToString()))
                await control.write(fuzzer.noted(case, case.rpc, ready.SerializeToString()))
                await self._disturb(case, fuzzer, control, outputs)
        finally:
            await control.end()
            await outputs.end()

    async def _disturb(self, case: Case, fuzzer: Fuzzer, control: _Stream, outputs: _Stream) -> None:
        for _ in range(case.dice.choice((2, 8, 25))):
            await asyncio.sleep(case.dice.choice((0, 0, 0.005, 0.02)))  # requests are placed and sent meanwhile
            if case.dice.random() < 0.4:
                going = await control.write(
                    fuzzer.message(case, case.rpc, bytes_share=STREAM_BYTES_SHARE, without="register")
                )
            else:
                going = await outputs.write(
                    fuzzer.message(case, self._outputs, bytes_share=STREAM_BYTES_SHARE, without="hello")
                )
            if not going:
                return


class _Stream:
    """One stream of the session; its replies are read all the time."""

    def __init__(self, channel: Any, path: str, response: Callable[..., Message], case: Case, fuzzer: Fuzzer) -> None:
        self._name = f"{path.rpartition('/')[2]} of a session"
        self._response: Any = response
        self._case, self._fuzzer = case, fuzzer
        self._call: Any = None
        self._channel, self._path = channel, path
        self._reading: asyncio.Task[None] | None = None
        self._replies: asyncio.Queue[Any] = asyncio.Queue()
        self._outcome = Outcome()

    async def write(self, data: bytes) -> bool:
        """Send a message; return whether the stream is still open."""
        if self._reading is None:
            self._call = self._channel.stream_stream(self._path)(
                metadata=self._case.identity.metadata, timeout=STREAM_S
            )
            self._reading = asyncio.create_task(self._read(), name="rogue-executor-reads")
        try:
            await self._call.write(data)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    async def first(self) -> Any:
        """Return the next reply; None if there is none in time."""
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._replies.get()
        except TimeoutError:
            return None

    async def end(self) -> None:
        """Half-close or break the stream, and judge how it ended."""
        if self._reading is None:
            return
        if self._case.dice.random() < 0.5:
            self._call.cancel()
        elif not self._call.done():
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._call.done_writing()
        await self._reading
        outcome = self._outcome
        self._fuzzer.findings.status(self._name, outcome.code, outcome.details, str(self._case))

    async def _read(self) -> None:
        try:
            async for data in self._call:
                reply = self._response.FromString(data)
                self._fuzzer.known.learn(reply)
                if self._replies.qsize() < REPLIES:
                    self._replies.put_nowait(reply)
        except grpc.aio.AioRpcError as error:
            self._outcome.failed(error)
        except asyncio.CancelledError:
            if not self._call.cancelled():
                raise
        self._replies.put_nowait(None)
