"""The bounds of connections in uvicorn itself: what of a client's bytes is a head, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn

from sage_gateway.connections import Connections
from sage_gateway.http_config import http_config
from tests.support.eventually import eventually

pytestmark = pytest.mark.vllm

WITHIN_S = 30.0
REQUEST_S = 0.1
LENGTH = 1000
POST = b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % LENGTH
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def answer_at_once(scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Answer without a look at the body."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"answer"})


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(connections: Connections, **configured: Any) -> AsyncIterator[Callable[[], Any]]:
    """Serve as the gateway does; yield what opens a connection."""
    config = uvicorn.Config(answer_at_once, port=0, **http_config(connections) | configured)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    await eventually(lambda: server.started, what="the server")
    port = server.servers[0].sockets[0].getsockname()[1]
    writers = []

    async def connect() -> Ends:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    try:
        async with asyncio.timeout(WITHIN_S):
            yield connect
    finally:
        for each in writers:
            each.close()
        server.should_exit = True
        await serving


async def answered(reader: asyncio.StreamReader) -> None:
    await reader.readuntil(b"answer")


async def time_of_a_silent_one(connect: Callable[[], Any]) -> None:
    """Wait until a connection that sends nothing is closed, which takes REQUEST_S."""
    reader, _ = await connect()
    with suppress(ConnectionError):
        assert await reader.read(1) == b""


async def test_the_rest_of_a_body_after_the_answer_is_no_head() -> None:
    async with connected(Connections(10, request_s=REQUEST_S)) as connect:
        reader, writer = await connect()
        writer.write(POST)
        await answered(reader)
        for _ in range(2):
            writer.write(b"x" * (LENGTH // 2))
            await time_of_a_silent_one(connect)
        await time_of_a_silent_one(connect)
        writer.write(GET)
        await answered(reader)


async def test_a_silence_after_the_rest_of_a_body_ends_the_connection() -> None:
    async with connected(Connections(10), timeout_keep_alive=0.1) as connect:
        reader, writer = await connect()
        writer.write(POST + b"x")
        await answered(reader)
        writer.write(b"x")
        assert await reader.read() == b""


async def test_half_a_head_after_an_unread_body_is_closed() -> None:
    async with connected(Connections(10, request_s=REQUEST_S)) as connect:
        reader, writer = await connect()
        writer.write(POST)
        await answered(reader)
        writer.write(b"x" * LENGTH + GET[:-1])
        assert await reader.read() == b""


async def test_requests_one_after_the_other_without_a_wait_are_answered() -> None:
    async with connected(Connections(10, request_s=REQUEST_S)) as connect:
        reader, writer = await connect()
        writer.write(GET * 3 + GET[:-1])
        for _ in range(3):
            await answered(reader)
        writer.write(GET[-1:])
        await answered(reader)


async def test_who_asks_for_a_websocket_is_counted_and_answered_as_others_are() -> None:
    connections = Connections(10, request_s=REQUEST_S)
    async with connected(connections) as connect:
        reader, writer = await connect()
        upgrade = b"connection: upgrade\r\nupgrade: websocket\r\n"
        key = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
        writer.write(GET[:-2] + upgrade + key + b"\r\n")
        await answered(reader)
        writer.close()
        await eventually(lambda: not connections._open, what="the connection's end")
