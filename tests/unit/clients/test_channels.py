"""Which address calls go to, and how a client waits for a connection."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from typing import cast

import grpc

from sage_client import NotLeaderError, UnavailableError
from sage_client._channel import Channel
from sage_client._channels import Channels
from sage_client._connection import Connection

TWO = Connection(address="127.0.0.1:1,127.0.0.1:2")
NOBODY = UnavailableError("connection refused", status="UNAVAILABLE")


def test_addresses_are_used_up_when_nobody_answered_at_any() -> None:
    channels = Channels(TWO)
    channels.failed(channels.turn, NOBODY)
    assert not channels.exhausted
    channels.failed(channels.turn, NOBODY)
    assert channels.exhausted


def test_an_end_whose_reason_grpc_lost_came_from_somebody() -> None:
    channels = Channels(TWO)
    channels.failed(channels.turn, NOBODY)
    channels.failed(channels.turn, NOBODY, answered=True)
    assert not channels.exhausted
    assert channels.turn == 2, "it is asked at the next address"


def test_a_standby_answers_too() -> None:
    channels = Channels(TWO)
    channels.failed(channels.turn, NOBODY)
    channels.failed(channels.turn, NotLeaderError("it stands by", status="UNAVAILABLE", reason="NOT_LEADER"))
    assert not channels.exhausted


async def test_a_client_goes_on_as_soon_as_there_is_a_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    channels = Channels(Connection(address=address))
    channels.check()
    assert channels.inference is not None  # the first call opens the channel
    waiting = [asyncio.create_task(channels.connected(3600.0)) for _ in range(3)]
    await asyncio.sleep(0)
    server = grpc.aio.server()
    server.add_insecure_port(address)
    await server.start()
    async with asyncio.timeout(30):
        await asyncio.gather(*waiting)
    await channels.close()
    await server.stop(None)


class Names(asyncio.DatagramProtocol):
    """A name server that has one IPv4 address for every name."""

    def __init__(self) -> None:
        self.address = "127.0.0.1"
        self.asked = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = data[12 : data.index(0, 12) + 5]
        found = question.endswith(b"\x00\x01\x00\x01")  # A, IN
        answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04" + socket.inet_aton(self.address) if found else b""
        head = data[:2] + b"\x81\x80\x00\x01" + bytes((0, found)) + bytes(4)
        self._transport.sendto(head + question + answer, addr)
        self.asked.set()


async def test_a_scheduler_is_found_that_starts_again_at_another_address_under_its_name() -> None:
    transport, names = await asyncio.get_running_loop().create_datagram_endpoint(Names, local_addr=("127.0.0.1", 0))
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.2:0")
    await server.start()
    connection = Connection(address=f"scheduler.test:{port}", insecure=True)
    resolved = f"dns://127.0.0.1:{transport.get_extra_info('sockname')[1]}/{connection.address}"
    channel = Channel(replace(connection, address=resolved))
    assert channel.inference is not None  # the first call opens the channel
    async with asyncio.timeout(20):
        looking = asyncio.create_task(channel.connected(3600.0))
        await names.asked.wait()  # nobody listens there
        names.address = "127.0.0.2"
        await looking
    await channel.close()
    await server.stop(None)
    transport.close()


async def test_where_there_is_a_connection_nobody_hurries() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channels = Channels(Connection(address=f"127.0.0.1:{port}"))
    assert channels.inference is not None
    await channels.connected(3600.0)
    waiting = asyncio.create_task(channels.connected(3600.0))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    waiting.cancel()
    await channels.close()
    await server.stop(None)


async def test_nobody_waits_longer_than_asked() -> None:
    channels = Channels(Connection(address="127.0.0.1:1"))
    assert channels.inference is not None
    async with asyncio.timeout(30):
        await channels.connected(0.01)
    await channels.close()
