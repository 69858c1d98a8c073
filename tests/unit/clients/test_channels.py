"""Which address calls go to, and how a client waits for a connection."""

from __future__ import annotations

import asyncio
import socket

import grpc

from sage_client import NotLeaderError, UnavailableError
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
