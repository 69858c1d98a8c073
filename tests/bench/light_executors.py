"""Executors that cost next to nothing: no engine, no text, a token for every running attempt at each beat.

Run as a child: ``light_executors ADDRESS COUNT STEP_S``.  All COUNT executors are tasks of one process and have the ids
``source-0`` and so on.  An attempt gets its max_tokens, one StepFrame carries one beat of an executor, and a scheduler
that does not read makes its executor wait.  The text of an attempt's first token is when its Assign came, in
nanoseconds of the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import grpc

from executor_svc.engine.simulated.facts import config_json
from executor_svc.engine.simulated.tokenizer import tokenizer_files
from executor_svc.runtime.text.text_source import TextSource
from executor_svc.transport.control_messages import control_request
from sage.controlplane.v1 import common_pb2, executor_pb2, executor_pb2_grpc
from sage_wire import durations
from sage_wire.protocol import ASSIGN_BATCHES, PROTOCOL_VERSION, STEP_FRAMES
from tests.bench.child import Child, child

MODEL = "simulated"
READY = "light executors: ready"
START_TIMEOUT_S = 120.0
EXECUTORS_PER_CHANNEL = 50  # a server allows 100 streams on a connection
TOKEN_ID = 345
TEXT = " word"
VOCAB_SIZE = 2_048
FACTS = executor_pb2.EngineFacts(
    engine="light executor",
    engine_version="1",
    model=MODEL,
    dtype="float32",
    vocab_size=VOCAB_SIZE,
    max_model_len=32_768,
    kv_capacity_tokens=16_000_000,
    kv_block_size=16,
    max_running=2_048,
    max_batched_tokens=65_536,
    weights="none",
    config_json=json.dumps(config_json(VOCAB_SIZE, 32_768)),
)


# --- the benchmark's side -------------------------------------------------------------------------------------------


@asynccontextmanager
async def light_executors(address: str, *, executors: int, step_s: float) -> AsyncIterator[Child]:
    """The executors, each with a session of its own, for as long as the context lasts."""
    async with child("light executors", "tests.bench.light_executors", address, str(executors), str(step_s)) as process:
        await process.wait_for(READY, START_TIMEOUT_S)
        yield process


# --- the child's side -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Running:
    position: int
    end: int
    text: str  # of the next token


class _Executor:
    def __init__(self, channel: grpc.aio.Channel, instance_id: str, step_s: float, text: TextSource) -> None:
        stub: Any = executor_pb2_grpc.ExecutorServiceStub(channel)
        self._instance_id = instance_id
        self._step_s = step_s
        self._text = text
        self._control = stub.Control()
        self._writing = asyncio.Lock()  # gRPC takes one message of a stream at a time
        self._outputs = stub.Outputs()
        self._running: dict[int, _Running] = {}
        self._accepted: list[int] = []
        self._ended: list[executor_pb2.AssignmentEnded] = []
        self._changed = asyncio.Event()
        self._last_assign = self._iterations = self._tokens = 0
        self.epoch = 0

    async def open(self) -> executor_pb2.Welcome:
        register = executor_pb2.Register(
            protocol_version=PROTOCOL_VERSION,
            capabilities=[STEP_FRAMES, ASSIGN_BATCHES],
            instance_id=self._instance_id,
            engine_start_id="1",
            role=common_pb2.INSTANCE_ROLE_GENERAL,
            model=MODEL,
        )
        await self._tell(executor_pb2.ControlRequest(register=register))
        welcome: executor_pb2.Welcome = (await self._control.read()).welcome
        self.epoch = welcome.epoch
        hello = executor_pb2.Hello(session_id=welcome.session_id)
        await self._outputs.write(executor_pb2.OutputsRequest(hello=hello))
        facts = executor_pb2.EngineFacts()
        facts.CopyFrom(FACTS)
        facts.tokenizer_hash = self._text.hash
        status = executor_pb2.EngineStatus(state=common_pb2.INSTANCE_STATE_READY, facts=facts)
        await self._tell(executor_pb2.ControlRequest(engine_status=status))
        return welcome

    async def serve(self, heartbeat_s: float) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_control())
            group.create_task(self._read_acks())
            group.create_task(self._beat(heartbeat_s))
            group.create_task(self._step())

    async def _tell(self, message: executor_pb2.ControlRequest) -> None:
        async with self._writing:
            await self._control.write(message)

    async def _read_control(self) -> None:
        while (message := await self._control.read()) is not grpc.aio.EOF:
            kind = message.WhichOneof("message")
            if kind == "assign":
                self._start(message.assign)
            elif kind == "assigns":
                for assign in message.assigns.assigns:
                    self._start(assign)
            elif kind == "cancel":
                number = message.cancel.attempt.number
                if (found := self._running.pop(number, None)) is not None:
                    self._end(number, found, executor_pb2.AssignmentEnded.CAUSE_CANCELLED)
            elif kind == "tokenizer_wanted":
                for chunk in self._text.chunks():
                    await self._tell(control_request(chunk))

    def _start(self, assign: executor_pb2.Assign) -> None:
        number, start = assign.attempt.number, len(assign.continuation.emitted_token_ids)
        self._running[number] = _Running(start, assign.sampling.max_tokens, str(time.monotonic_ns()))
        self._accepted.append(number)
        self._last_assign = assign.number
        self._changed.set()

    async def _read_acks(self) -> None:
        while await self._outputs.read() is not grpc.aio.EOF:
            pass

    async def _beat(self, heartbeat_s: float) -> None:
        for number in count(1):
            beat = executor_pb2.Heartbeat(
                number=number,
                last_assign=self._last_assign,
                running=len(self._running),
                unfinished=len(self._running),
                iterations=self._iterations,
                generation_tokens_total=self._tokens,
            )
            await self._tell(executor_pb2.ControlRequest(heartbeat=beat))
            await asyncio.sleep(heartbeat_s)

    async def _step(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if not self._running and not self._ended:
                self._changed.clear()
                await self._changed.wait()
                due = loop.time()
            due = max(due + self._step_s, loop.time())
            await asyncio.sleep(due - loop.time())
            await self._outputs.write(executor_pb2.OutputsRequest(step=self._frame()))

    def _frame(self) -> executor_pb2.StepFrame:
        numbers = list(self._running)
        firsts = [running.position for running in self._running.values()]
        accepted = [executor_pb2.AssignmentAccepted(attempt_number=number) for number in self._accepted]
        self._accepted.clear()
        texts = [running.text for running in self._running.values()]
        for number, running in list(self._running.items()):
            running.position += 1
            running.text = TEXT
            if running.position >= running.end:
                del self._running[number]
                self._end(number, running, executor_pb2.AssignmentEnded.CAUSE_FINISHED)
        ended, self._ended = self._ended, []
        entries = len(numbers)
        self._tokens += entries
        self._iterations += 1
        return executor_pb2.StepFrame(
            epoch=self.epoch,
            accepted=accepted,
            attempt_numbers=numbers,
            first_indexes=firsts,
            token_ids=[TOKEN_ID] * entries,
            text_lengths=list(map(len, texts)),
            text="".join(texts),
            ended=ended,
        )

    def _end(self, number: int, running: _Running, cause: executor_pb2.AssignmentEnded.Cause.ValueType) -> None:
        self._ended.append(
            executor_pb2.AssignmentEnded(
                attempt_number=number,
                cause=cause,
                finish_reason=common_pb2.FINISH_REASON_LENGTH,
                total_tokens=running.position,
                engine_time=durations.to_wire(0.1),
            )
        )


async def _serve(address: str, executors: int, step_s: float) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    channels = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(-(-executors // EXECUTORS_PER_CHANNEL))
    ]
    text = TextSource(tokenizer_files(VOCAB_SIZE))
    made = [
        _Executor(channels[index // EXECUTORS_PER_CHANNEL], f"source-{index}", step_s, text)
        for index in range(executors)
    ]
    serving = []
    for each in made:
        welcome = await each.open()
        serving.append(asyncio.create_task(each.serve(durations.from_wire(welcome.heartbeat_interval))))
    print(READY, flush=True)
    await stop.wait()
    for task in serving:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*serving, return_exceptions=True)
    for channel in channels:
        await channel.close()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
