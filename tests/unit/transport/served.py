"""The scheduler as its own wiring builds it, on a free port, and an executor of which every word can be chosen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sage.controlplane.v1 import common_pb2, executor_pb2, executor_pb2_grpc
from sage_wire.protocol import PROTOCOL_VERSION
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.wiring.scheduler_service import SchedulerService

MODEL = "m"
WITHIN_S = 5.0
TOKENIZER_HASH = "0" * 64

Metadata = tuple[tuple[str, str], ...]
ControlCall = grpc.aio.StreamStreamCall[executor_pb2.ControlRequest, executor_pb2.ControlResponse]
OutputsCall = grpc.aio.StreamStreamCall[executor_pb2.OutputsRequest, executor_pb2.OutputsResponse]


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[SchedulerService]:
    """Its tokenizer store already has the tokenizer that ``WireExecutor`` names, so that token ids are accepted."""
    config = SchedulerConfig(**{"listen": "127.0.0.1:0", "policy": "fifo", "drain_timeout_s": 0.0, **settings})
    scheduler = SchedulerService(config)
    scheduler._tokenizers._models[TOKENIZER_HASH] = None  # type: ignore[assignment]  # only its being there is asked
    await scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.stop()


@asynccontextmanager
async def dialled(scheduler: SchedulerService) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{scheduler.port}", options=options) as channel:
        yield channel


def registration(instance_id: str = "a", **fields: Any) -> executor_pb2.Register:
    defaults = {"protocol_version": PROTOCOL_VERSION, "engine_start_id": "start", "model": MODEL}
    return executor_pb2.Register(instance_id=instance_id, **{**defaults, **fields})


def facts(**fields: Any) -> executor_pb2.EngineFacts:
    defaults = {
        "engine": "wire",
        "vocab_size": 1000,
        "max_model_len": 4096,
        "kv_capacity_tokens": 100_000,
        "max_running": 4,
        "max_batched_tokens": 2048,
        "tokenizer_hash": TOKENIZER_HASH,
    }
    return executor_pb2.EngineFacts(**{**defaults, **fields})


class WireExecutor:
    """``register`` and ``open_outputs`` make a session; ``ready`` makes it take work."""

    def __init__(self, channel: grpc.aio.Channel, *, metadata: Metadata = ()) -> None:
        self.stub = executor_pb2_grpc.ExecutorServiceStub(channel)
        self.metadata = metadata
        self.control: ControlCall = self.stub.Control(metadata=metadata)
        self.outputs: OutputsCall
        self.welcome = executor_pb2.Welcome()

    async def register(self, register: executor_pb2.Register | None = None) -> executor_pb2.Welcome:
        """Raises AioRpcError where it is refused."""
        await self.say(register=register or registration())
        self.welcome = (await self.hear()).welcome
        return self.welcome

    async def open_outputs(self, session_id: str = "") -> None:
        self.outputs = self.stub.Outputs(metadata=self.metadata)
        hello = executor_pb2.Hello(session_id=session_id or self.welcome.session_id)
        await self.outputs.write(executor_pb2.OutputsRequest(hello=hello))

    async def ready(self) -> None:
        await self.say(engine_status=executor_pb2.EngineStatus(state=common_pb2.INSTANCE_STATE_READY, facts=facts()))

    async def say(self, **message: Any) -> None:
        await self.control.write(executor_pb2.ControlRequest(**message))

    async def hear(self) -> executor_pb2.ControlResponse:
        response = await asyncio.wait_for(self.control.read(), WITHIN_S)
        if not isinstance(response, executor_pb2.ControlResponse):
            raise await refusal(self.control)
        return response

    async def report(self, **message: Any) -> None:
        await self.outputs.write(executor_pb2.OutputsRequest(**message))

    async def whole(self, register: executor_pb2.Register | None = None) -> None:
        await self.register(register)
        await self.open_outputs()
        await self.ready()


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """How a call ended, as the error that reading it would raise."""
    return grpc.aio.AioRpcError(
        await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The catalogue's code of a refusal."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it reads what both kinds of call have
    assert status is not None, error
    for packed in status.details:
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info):
            return info.reason
    raise AssertionError(f"no ErrorInfo in {status}")
