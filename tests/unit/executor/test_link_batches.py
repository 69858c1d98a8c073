"""How the Assigns of one message are taken: many at a time, and with turns of the event loop for others in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast

import grpc

from executor_svc.runtime.messages.commands import Assign
from executor_svc.runtime.messages.registration import Identity, Register, Role
from executor_svc.transport.grpc_link import COMMANDS_PER_TURN, GrpcLink
from sage.controlplane.v1 import common_pb2, executor_pb2

REGISTER = Register(identity=Identity(instance_id="a", engine_start_id="1", role=Role.GENERAL, model="m"))
EPOCH = 7


class Channel:
    """A channel whose one call gets these messages, without waiting."""

    def __init__(self, messages: Iterator[executor_pb2.ControlResponse]) -> None:
        self._messages = messages

    def stream_stream(self, *_: object, **__: object) -> Channel:
        return self

    def __call__(self, *_: object, **__: object) -> Channel:
        return self

    async def write(self, message: executor_pb2.ControlRequest) -> None:
        pass

    async def read(self) -> object:
        return next(self._messages, grpc.aio.EOF)


def batch(assigns: int) -> executor_pb2.ControlResponse:
    message = executor_pb2.ControlResponse()
    for number in range(assigns):
        attempt = common_pb2.Attempt(epoch=EPOCH, number=number)
        message.assigns.assigns.add(attempt=attempt, phase=common_pb2.PHASE_HYBRID, prompt_token_ids=[5])
    return message


async def test_a_batch_is_taken_in_order_and_gives_turns_to_others() -> None:
    welcome = executor_pb2.ControlResponse(welcome=executor_pb2.Welcome(session_id="s", epoch=EPOCH))
    welcome.welcome.lease.FromSeconds(5)
    welcome.welcome.heartbeat_interval.FromSeconds(1)
    channel = Channel(iter([welcome, batch(2 * COMMANDS_PER_TURN + 1)]))
    link = GrpcLink(lambda: cast(grpc.aio.Channel, channel), ())
    await link.register(REGISTER)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.ensure_future(others())
    await asyncio.sleep(0)
    taken, began = [], turns
    async for command in link.commands():
        assert isinstance(command, Assign)
        taken.append((command.attempt.number, turns - began))
    other.cancel()
    assert taken == [(number, number // COMMANDS_PER_TURN) for number in range(2 * COMMANDS_PER_TURN + 1)]
