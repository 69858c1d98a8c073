"""A scheduler that sends mutated messages on both streams, to a real executor; every tenth session is a proper one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError, Message

from executor_svc.runtime.engine_port import Sampling
from sage.controlplane.v1 import common_pb2, executor_pb2
from tests.fuzz.findings import Findings
from tests.fuzz.fuzzer import changed
from tests.fuzz.known_values import KnownValues
from tests.fuzz.message_maker import MessageMaker
from tests.fuzz.plausible_messages import PLAUSIBLE
from tests.fuzz.set_everywhere import set_everywhere
from tests.support.simulated_answer import answer

SERVICE = "sage.controlplane.v1.ExecutorService"
PROPER_EVERY = 10  # sessions
PROMPT = list(range(1, 30))
LENGTH = 40
WITNESS_WITHIN_S = 20.0
RIGHT_EPOCH_SHARE = 0.85
PLAUSIBLE_WELCOME_SHARE = 0.85
ENDS = (None, None, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.ABORTED)
PAUSES_S = (0.0, 0.0, 0.002, 0.02)

Context = Any


class RogueScheduler:
    """Serves ExecutorService, and nothing else, to one executor."""

    def __init__(self, seed: int, findings: Findings) -> None:
        self.messages: Counter[str] = Counter()  # sent, by the stream
        self.witnessed = 0  # proper sessions whose attempt was answered exactly
        self.known = KnownValues()
        self.address = ""
        self.executor_address = ""
        self.proper = asyncio.Event()  # only proper sessions from now on
        self.leaving = False  # the executor is told to end, so it may refuse an attempt
        self._seed, self._findings = seed, findings
        self._session = 0
        self._epoch = 1  # the highest that the executor was told
        self._others: dict[str, list[bytes]] = {}
        self._server = grpc.aio.server()
        self._open: _Session | None = None
        self._wanted: tuple[int, ...] = ()

    async def __aenter__(self) -> Self:
        self._wanted = (await answer(PROMPT, Sampling(temperature=0, max_tokens=LENGTH))).token_ids
        handlers: dict[str, Any] = {
            "Control": grpc.stream_stream_rpc_method_handler(self.Control),
            "Outputs": grpc.stream_stream_rpc_method_handler(self.Outputs),
        }
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    # --- streams ------------------------------------------------------------------------------------------------

    async def Control(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Run one session, a proper one or one of mutated messages."""
        register = executor_pb2.ControlRequest.FromString(await anext(requests)).register
        self.executor_address = register.address
        self._session += 1
        session = self._open = _Session(self._session, Random(f"{self._seed}/{self._session}"))
        reading = asyncio.create_task(self._read(requests, executor_pb2.ControlRequest.FromString), name="rogue-reads")
        try:
            if self.proper.is_set() or session.number % PROPER_EVERY == 0:
                await self._be_proper(session, context)
            else:
                await self._be_hostile(session, context)
        finally:
            session.over.set()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def Outputs(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Read what attempts put out; acknowledge it in a mutated way, or as one should."""
        session = self._open
        assert session is not None
        sending = asyncio.create_task(self._acknowledge(session, context), name="rogue-acknowledges")
        try:
            async for data in requests:
                message = executor_pb2.OutputsRequest.FromString(data)
                self.known.learn(message)
                session.take(message)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    # --- mutated ------------------------------------------------------------------------------------------------

    async def _be_hostile(self, session: _Session, context: Context) -> None:
        dice = session.dice
        if dice.random() < PLAUSIBLE_WELCOME_SHARE:
            await context.write(self._welcome().SerializeToString())
        for _ in range(dice.choice((1, 5, 30, 60))):
            await context.write(self._mutated(session, executor_pb2.ControlResponse))
            await asyncio.sleep(dice.choice(PAUSES_S))
        code = dice.choice(ENDS)
        if code is not None:
            await context.abort(code, "the rogue has enough")

    async def _acknowledge(self, session: _Session, context: Context) -> None:
        if session.proper:
            return
        for _ in range(session.dice.choice((0, 3, 20))):
            await context.write(self._mutated(session, executor_pb2.OutputsResponse))
            await asyncio.sleep(session.dice.choice(PAUSES_S))

    def _mutated(self, session: _Session, kind: type[Message]) -> bytes:
        message = MessageMaker(session.dice, self.known).message(kind.DESCRIPTOR)
        if session.dice.random() < RIGHT_EPOCH_SHARE:
            set_everywhere(message, "epoch", self._epoch)
        data = changed(message, kind.DESCRIPTOR.name, self._others, session.dice)
        self.messages[kind.DESCRIPTOR.name] += 1
        self._note_epoch(data)
        return data

    def _note_epoch(self, data: bytes) -> None:
        """Remember an epoch that the executor may believe: it refuses older ones from then on."""
        with contextlib.suppress(DecodeError):
            self._epoch = max(self._epoch, executor_pb2.ControlResponse.FromString(data).welcome.epoch)

    # --- proper -------------------------------------------------------------------------------------------------

    async def _be_proper(self, session: _Session, context: Context) -> None:
        """Have one attempt run, and look at all its tokens."""
        session.proper = True
        assign = executor_pb2.Assign(
            number=1, prompt_token_ids=PROMPT, phase=common_pb2.PHASE_HYBRID, request_id="witness"
        )
        assign.attempt.epoch, assign.attempt.number = self._epoch, session.witness
        assign.sampling.max_tokens, assign.sampling.temperature = LENGTH, 0.0
        await context.write(self._welcome().SerializeToString())
        await context.write(executor_pb2.ControlResponse(drain=executor_pb2.Drain(resume=True)).SerializeToString())
        await context.write(executor_pb2.ControlResponse(assign=assign).SerializeToString())
        try:
            async with asyncio.timeout(WITNESS_WITHIN_S):
                await session.ended.wait()
        except TimeoutError:
            if not self.leaving:
                self._findings.add(f"session {session.number}: the attempt did not end: {session.told}")
            return
        if tuple(session.tokens) == self._wanted:
            self.witnessed += 1
        elif not self.leaving:
            self._findings.add(f"session {session.number}: {session.tokens}, not {self._wanted}; {session.told}")

    def _welcome(self) -> executor_pb2.ControlResponse:
        response = executor_pb2.ControlResponse()
        PLAUSIBLE["sage.controlplane.v1.Welcome"](response.welcome, Random(0))
        response.welcome.epoch = self._epoch
        return response

    async def _read(self, requests: AsyncIterator[bytes], parse: Callable[[bytes], Message]) -> None:
        async for data in requests:
            self.known.learn(parse(data))


class _Session:
    """What is known of one session."""

    def __init__(self, number: int, dice: Random) -> None:
        self.number, self.dice = number, dice
        self.proper = False
        self.witness = 10**12 + number  # the attempt of a proper session
        self.tokens: list[int] = []
        self.told: list[str] = []  # what was said of it besides tokens
        self.ended, self.over = asyncio.Event(), asyncio.Event()

    def take(self, message: executor_pb2.OutputsRequest) -> None:
        """Note what the executor says of the proper attempt."""
        for piece in message.frame.tokens:
            if piece.attempt_number == self.witness:
                self.tokens += piece.token_ids
        for about in (message.rejected, message.ended):
            if about.attempt_number == self.witness:
                self.told.append(str(about))
                self.ended.set()
