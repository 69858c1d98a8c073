"""A scheduler that does what a test tells it, over real gRPC on loopback, and writes down what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sage.controlplane.v1 import common_pb2, executor_pb2, executor_pb2_grpc
from sage_wire.errors import DOMAIN, ErrorReason
from sage_wire.protocol import STEP_FRAMES

Context = grpc.aio.ServicerContext[Any, Any]
PATIENCE_S = 10.0
GREEDY = common_pb2.SamplingParams(temperature=0, max_tokens=24)


class Session:
    """One pair of streams, from the scheduler's side."""

    def __init__(self, scheduler: ScriptedScheduler, register: executor_pb2.Register, session_id: str) -> None:
        self._scheduler = scheduler
        self.register = register
        self.session_id = session_id
        self.control: list[executor_pb2.ControlRequest] = []  # what came, Register apart
        self.outputs: list[executor_pb2.OutputsRequest] = []  # what came, Hello apart; StepFrames taken apart
        self.steps = 0  # StepFrames among it
        self.outputs_open = False
        self._down: asyncio.Queue[executor_pb2.ControlResponse] = asyncio.Queue()
        self._acks: asyncio.Queue[executor_pb2.OutputsResponse] = asyncio.Queue()
        self._cut = asyncio.Event()
        self._assigns = 0

    # --- saying things ----------------------------------------------------------------------------------------------

    def send(self, **message: Any) -> None:
        self._down.put_nowait(executor_pb2.ControlResponse(**message))

    def assign(
        self,
        number: int,
        *,
        epoch: int | None = None,
        prompt: Sequence[int] = (300, 301, 302),
        sampling: common_pb2.SamplingParams = GREEDY,
        **more: Any,
    ) -> None:
        self._assigns += 1
        self.send(
            assign=executor_pb2.Assign(
                number=self._assigns,
                attempt=self.attempt(number, epoch),
                request_id=f"request-{number}",
                prompt_token_ids=prompt,
                sampling=sampling,
                **more,
            )
        )

    def attempt(self, number: int, epoch: int | None = None) -> common_pb2.Attempt:
        return common_pb2.Attempt(epoch=self._scheduler.epoch if epoch is None else epoch, number=number)

    def cancel(self, number: int) -> None:
        self.send(cancel=executor_pb2.Cancel(attempt=self.attempt(number), reason="the test says so"))

    def resume(self, number: int, from_index: int) -> None:
        self.send(resume=executor_pb2.Resume(attempt=self.attempt(number), from_index=from_index))

    def acknowledge(self, number: int, tokens: int, *, ended: bool = False, epoch: int = 0) -> None:
        ack = executor_pb2.OutputAck(attempt_number=number, epoch=epoch, tokens=tokens, ended=ended)
        self._acks.put_nowait(executor_pb2.OutputsResponse(acks=[ack]))

    def cut(self) -> None:
        """Break both streams as a lost connection does."""
        self._cut.set()

    # --- hearing things ---------------------------------------------------------------------------------------------

    def heard(self, kind: str) -> list[Any]:
        """The control messages of one kind so far."""
        return [getattr(m, kind) for m in self.control if m.WhichOneof("message") == kind]

    def about(self, kind: str, number: int) -> list[Any]:
        """The output messages of one kind about one attempt so far."""
        found = [getattr(m, kind) for m in self.outputs if m.WhichOneof("message") == kind]
        return [message for message in found if message.attempt_number == number]

    def pieces(self, number: int) -> list[executor_pb2.AssignmentTokens]:
        frames = [m.frame for m in self.outputs if m.WhichOneof("message") == "frame"]
        return [piece for frame in frames for piece in frame.tokens if piece.attempt_number == number]

    def token_ids(self, number: int) -> list[int]:
        return [token_id for piece in self.pieces(number) for token_id in piece.token_ids]

    def text(self, number: int) -> str:
        text = "".join(piece.text for piece in self.pieces(number))
        return text + "".join(ended.trailing_text for ended in self.about("ended", number))

    async def until(self, fact: Callable[[], Any]) -> Any:
        return await self._scheduler.until(fact)

    async def ended(self, number: int) -> executor_pb2.AssignmentEnded:
        ends = await self.until(lambda: self.about("ended", number))
        assert len(ends) == 1
        return ends[0]  # type: ignore[no-any-return]

    async def ready(self) -> executor_pb2.EngineStatus:
        def found() -> list[Any]:
            return [s for s in self.heard("engine_status") if s.state == common_pb2.INSTANCE_STATE_READY]

        return (await self.until(found))[0]  # type: ignore[no-any-return]

    # --- the streams ------------------------------------------------------------------------------------------------

    async def run_control(self, requests: AsyncIterator[executor_pb2.ControlRequest], context: Context) -> None:
        await self._both(self._read_control(requests), self._write(self._down, context), context)

    async def run_outputs(self, requests: AsyncIterator[executor_pb2.OutputsRequest], context: Context) -> None:
        self.outputs_open = True
        self._scheduler.note()
        await self._both(self._read_outputs(requests), self._write(self._acks, context), context)

    async def _both(self, read: Any, write: Any, context: Context) -> None:
        tasks = [asyncio.ensure_future(work) for work in (read, write, self._cut.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._cut.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    async def _read_control(self, requests: AsyncIterator[executor_pb2.ControlRequest]) -> None:
        async for request in requests:
            self.control.append(request)
            if request.WhichOneof("message") == "heartbeat" and self._scheduler.answers_heartbeats:
                self.send(heartbeat_ack=executor_pb2.HeartbeatAck(number=request.heartbeat.number))
            self._scheduler.note()

    async def _read_outputs(self, requests: AsyncIterator[executor_pb2.OutputsRequest]) -> None:
        async for request in requests:
            is_step = request.WhichOneof("message") == "step"
            self.steps += is_step
            for message in _taken_apart(request.step) if is_step else [request]:
                self.outputs.append(message)
                ended = message.ended
                if message.WhichOneof("message") == "ended" and self._scheduler.acknowledges_ends:
                    self.acknowledge(ended.attempt_number, ended.total_tokens, ended=True)
            self._scheduler.note()

    async def _write(self, messages: asyncio.Queue[Any], context: Context) -> None:
        while True:
            await context.write(await messages.get())


def _taken_apart(step: executor_pb2.StepFrame) -> Iterator[executor_pb2.OutputsRequest]:
    """The messages that an executor sends to a scheduler that does not read StepFrame."""
    for accepted in step.accepted:
        yield executor_pb2.OutputsRequest(accepted=accepted)
    for rejected in step.rejected:
        yield executor_pb2.OutputsRequest(rejected=rejected)
    frame = executor_pb2.Frame()
    counts = step.counts or [1] * len(step.attempt_numbers)
    text_lengths = step.text_lengths or [0] * len(step.attempt_numbers)
    start = text_start = 0
    for number, first, count, length in zip(
        step.attempt_numbers, step.first_indexes, counts, text_lengths, strict=True
    ):
        token_ids, text = step.token_ids[start : start + count], step.text[text_start : text_start + length]
        frame.tokens.add(attempt_number=number, first_index=first, token_ids=token_ids, text=text, epoch=step.epoch)
        start, text_start = start + count, text_start + length
    frame.tokens.extend(step.pieces)
    if frame.tokens:
        yield executor_pb2.OutputsRequest(frame=frame)
    for ended in step.ended:
        yield executor_pb2.OutputsRequest(ended=ended)


class ScriptedScheduler(executor_pb2_grpc.ExecutorServiceServicer):
    capabilities: Sequence[str] = (STEP_FRAMES,)

    def __init__(self) -> None:
        self.epoch = 7
        self.lease_s = 5.0
        self.heartbeat_interval_s = 0.1
        self.keep: Callable[[executor_pb2.Register], Iterable[common_pb2.Attempt]] = lambda register: ()
        self.refusal: ErrorReason | None = None
        self.answers_heartbeats = True
        self.acknowledges_ends = True
        self.sessions: list[Session] = []
        self.refused = 0
        self.port = 0
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        executor_pb2_grpc.add_ExecutorServiceServicer_to_server(self, self._server)
        self._changed = asyncio.Condition()
        self._notes: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        address = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(grace=None)
        await asyncio.gather(*self._notes)

    async def session(self, index: int = 0) -> Session:
        """The ``index``-th session, once both its streams are open."""
        await self.until(lambda: len(self.sessions) > index and self.sessions[index].outputs_open)
        return self.sessions[index]

    async def until(self, fact: Callable[[], Any]) -> Any:
        """Waits until something that was heard makes ``fact`` true, and gives it."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(fact)
        return fact()

    def note(self) -> None:
        """Something was heard."""
        task = asyncio.ensure_future(self._notify())
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def Control(  # type: ignore[override]
        self, request_iterator: AsyncIterator[executor_pb2.ControlRequest], context: Context
    ) -> None:
        register = (await anext(request_iterator)).register
        if self.refusal is not None:
            self.refused += 1
            self.note()
            await _refuse(context, self.refusal)
        session = Session(self, register, f"session-{len(self.sessions)}")
        self.sessions.append(session)
        self.note()
        welcome = executor_pb2.Welcome(
            protocol_version=1,
            session_id=session.session_id,
            epoch=self.epoch,
            capabilities=self.capabilities,
            lease=_duration(self.lease_s),
            heartbeat_interval=_duration(self.heartbeat_interval_s),
            keep=self.keep(register),
        )
        await context.write(executor_pb2.ControlResponse(welcome=welcome))
        await session.run_control(request_iterator, context)

    async def Outputs(  # type: ignore[override]
        self, request_iterator: AsyncIterator[executor_pb2.OutputsRequest], context: Context
    ) -> None:
        hello = (await anext(request_iterator)).hello
        session = next(s for s in self.sessions if s.session_id == hello.session_id)
        await session.run_outputs(request_iterator, context)


async def _refuse(context: Context, reason: ErrorReason) -> None:
    info = error_details_pb2.ErrorInfo(reason=reason.code, domain=DOMAIN)
    status = status_pb2.Status(code=reason.status.value[0], message=f"refused: {reason.code}")
    status.details.add().Pack(info)
    wire = rpc_status.to_status(status)
    await context.abort(wire.code, wire.details, wire.trailing_metadata)


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


@asynccontextmanager
async def scripted_scheduler(
    port: int = 0, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[ScriptedScheduler]:
    scheduler = ScriptedScheduler()
    await scheduler.start(port, credentials)
    try:
        yield scheduler
    finally:
        await scheduler.stop()
