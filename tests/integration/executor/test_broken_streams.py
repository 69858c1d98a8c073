"""What an executor's link does with a scheduler that sends nonsense, or ends a stream in the middle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from executor_svc.runtime.link import LinkBroken
from executor_svc.runtime.messages.registration import Identity, Register, Role
from executor_svc.runtime.messages.reports import Drained
from executor_svc.transport.grpc_link import GrpcDialer, GrpcLink
from executor_svc.transport.health_server import HealthServer
from executor_svc.transport.tls import DialCredentials
from sage.controlplane.v1 import executor_pb2
from tests.support.eventually import eventually

NO_MESSAGE = b"\xff\xff\xff"
REGISTER = Register(identity=Identity(instance_id="a", engine_start_id="1", role=Role.GENERAL, model="m"))
Control = Callable[[AsyncIterator[bytes], Any], Any]


def welcome() -> bytes:
    response = executor_pb2.ControlResponse(welcome=executor_pb2.Welcome(session_id="s", epoch=1))
    response.welcome.lease.seconds = response.welcome.heartbeat_interval.seconds = 1
    return response.SerializeToString()


@asynccontextmanager
async def linked(control: Control) -> AsyncIterator[GrpcLink]:
    """A link to a scheduler whose control stream is ``control``, which reads and writes bytes."""
    server = grpc.aio.server()
    handlers: dict[str, Any] = {"Control": grpc.stream_stream_rpc_method_handler(control)}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("sage.controlplane.v1.ExecutorService", handlers)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    dialer = GrpcDialer(DialCredentials(ca=None, certificate=None, private_key=None, token_file=None))
    link = dialer.dial(f"127.0.0.1:{port}")
    try:
        yield link
    finally:
        await link.close()
        await server.stop(None)


async def test_a_message_that_cannot_be_decoded_breaks_the_link_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def control(requests: AsyncIterator[bytes], context: Any) -> None:
        await anext(requests)
        await context.write(welcome())
        await context.write(NO_MESSAGE)
        await asyncio.Event().wait()

    caplog.set_level(logging.WARNING)
    async with linked(control) as link:
        await link.register(REGISTER)
        with pytest.raises(LinkBroken, match="is not a ControlResponse"):
            await anext(link.commands())
    assert not caplog.records, "no stack of gRPC's"


async def test_a_link_that_breaks_with_messages_unread_leaves_nothing_behind() -> None:
    """grpc.aio would keep a call whose write failed, with what was not read of it."""
    before = asyncio.all_tasks()

    async def control(requests: AsyncIterator[bytes], context: Any) -> None:
        await anext(requests)
        for _ in range(3):
            await context.write(welcome())
        await context.abort(grpc.StatusCode.UNAVAILABLE, "it leaves")

    async with linked(control) as link:
        await link.register(REGISTER)
        with pytest.raises(LinkBroken):
            await _send_until_it_fails(link)
    await eventually(lambda: asyncio.all_tasks() <= before, within_s=5.0, what="gRPC's tasks to end")


async def test_health_checks_that_cannot_be_decoded_are_refused_without_a_stack(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    server = HealthServer("127.0.0.1:0", None)
    address = f"127.0.0.1:{await server.start()}"
    try:
        async with grpc.aio.insecure_channel(address) as opened:
            channel: Any = opened  # the stubs know no messages as bytes
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/grpc.health.v1.Health/Check")(NO_MESSAGE)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == "message: is not a HealthCheckRequest"
            reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            stream = channel.stream_stream(reflection)(_once(NO_MESSAGE))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            stub: Any = health_pb2_grpc.HealthStub(channel)
            told = await stub.Check(health_pb2.HealthCheckRequest())
            assert told.status == health_pb2.HealthCheckResponse.NOT_SERVING
    finally:
        await server.stop()
    assert not caplog.records


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _send_until_it_fails(link: GrpcLink) -> None:
    for _ in range(200):
        await link.send_control(Drained())
        await asyncio.sleep(0.01)
