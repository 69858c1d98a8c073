"""Connections that ask for nothing are closed, and take nobody's place."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from sage_gateway.connections import Connections, bounded, most_connections

WITHIN_S = 20.0
HEAD = b"GET / HTTP/1.1\r\n\r\n"


class Echo(asyncio.Protocol):
    """What of uvicorn's HTTP protocol counts here: it answers each head, except one for /slow."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.cycle: SimpleNamespace | None = None
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        if self._read.endswith(b"\r\n\r\n"):
            slow, self._read = b"/slow" in self._read, b""
            self.cycle = SimpleNamespace(response_complete=False)
            if not slow:
                asyncio.get_running_loop().call_soon(self._answer, self.cycle)

    def _answer(self, cycle: SimpleNamespace) -> None:
        cycle.response_complete = True
        self.transport.write(b"answer")


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Server:
    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, sent: bytes = b"") -> Ends:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        writer.write(sent)
        return reader, writer

    def close(self) -> None:
        for each in self._writers:
            each.close()


@asynccontextmanager
async def serving(connections: Connections) -> AsyncIterator[Server]:
    protocol = bounded(Echo, connections)
    listening = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    async with listening, asyncio.timeout(WITHIN_S):
        server = Server(listening.sockets[0].getsockname()[1])
        try:
            yield server
        finally:
            server.close()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Return True once the connection is closed, however that is told."""
    try:
        return await reader.read(100) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize("sent", [b"", HEAD[:-1]], ids=["nothing", "half a head"])
async def test_a_connection_without_a_request_is_closed(sent: bytes) -> None:
    async with serving(Connections(10, request_s=0.05)) as server:
        reader, _ = await server.connect(sent)
        assert await ended(reader)


async def test_half_a_head_after_an_answer_is_closed_too() -> None:
    async with serving(Connections(10, request_s=0.05)) as server:
        reader, writer = await server.connect(HEAD)
        assert await reader.read(100) == b"answer"
        writer.write(HEAD[:-1])
        assert await ended(reader)


async def test_neither_a_request_nor_the_pause_after_one_is_closed() -> None:
    connections = Connections(10, request_s=0.05)
    async with serving(connections) as server:
        slow, _ = await server.connect(b"GET /slow HTTP/1.1\r\n\r\n")
        paused, writer = await server.connect(HEAD)
        assert await paused.read(100) == b"answer"
        silent, _ = await server.connect()
        assert await ended(silent), "by then the time of the others would be over"
        writer.write(HEAD)
        assert await paused.read(100) == b"answer"
        assert not slow.at_eof()


async def test_at_the_bound_the_one_that_waited_longest_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    connections = Connections(3)
    async with serving(connections) as server:
        asking, writer = await server.connect(HEAD)
        assert await asking.read(100) == b"answer"
        first, second = [(await server.connect())[0] for _ in range(2)]
        for _ in range(2):
            reader, _ = await server.connect(HEAD)
            assert await reader.read(100) == b"answer"
        assert await ended(first)
        assert await ended(second)
        writer.write(HEAD)
        assert await asking.read(100) == b"answer"
        last, _ = await server.connect()
        assert await ended(last), "the others have asked"
    assert caplog.messages == ["new connections find no room: all 3 connections are taken"], "seldom"


async def test_connections_that_come_at_once_are_bounded_too() -> None:
    async with serving(Connections(5)) as server:
        readers = [reader for reader, _ in await asyncio.gather(*(server.connect() for _ in range(50)))]
        closed = [asyncio.create_task(ended(reader)) for reader in readers]
        while sum(each.done() for each in closed) < 45:
            await asyncio.wait([each for each in closed if not each.done()], return_when=asyncio.FIRST_COMPLETED)
        assert sum(each.done() for each in closed) == 45
        for each in closed:
            each.cancel()


async def test_a_process_without_files_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    connections, loop = Connections(10), asyncio.get_running_loop()
    for _ in range(100):
        failure = OSError(24, "Too many open files")
        connections.loop_failed(loop, {"message": "socket.accept() out of system resource", "exception": failure})
    assert caplog.messages == ["new connections find no room: [Errno 24] Too many open files"]
    connections.loop_failed(loop, {"message": "another error"})
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]


@pytest.mark.parametrize(
    ("limits", "most", "set_to"),
    [
        ((1_024, 4_096), 3_996, (4_096, 4_096)),
        ((1_024, 1_000_000), 10_000, (10_100, 1_000_000)),
        ((1_024, resource.RLIM_INFINITY), 10_000, (10_100, resource.RLIM_INFINITY)),
        ((1_000_000, 1_000_000), 10_000, None),
        ((50, 50), 1, (50, 50)),
    ],
)
def test_as_many_connections_as_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], most: int, set_to: tuple[int, int] | None
) -> None:
    was_set: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, found: was_set.append(found))
    assert most_connections() == most
    assert was_set == ([] if set_to is None else [set_to])
