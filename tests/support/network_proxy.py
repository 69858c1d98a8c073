"""A TCP proxy whose connections a test breaks: cut at once, refused, or left open and silent."""

from __future__ import annotations

import asyncio
from typing import Self

CHUNK_BYTES = 65_536


class NetworkProxy:
    """Passes bytes on to ``port`` of this machine until it is told otherwise.

    ``cut`` resets what is open; ``refuse`` also takes nothing new; ``blackhole`` keeps everything open, takes new
    connections, and passes no byte on in either direction, so that neither end is told; ``heal`` takes both back.
    ``delay_s`` holds up every piece that is passed on.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self.port = 0
        self.connections = 0  # accepted so far
        self.delay_s = 0.0  # by which what is passed on is held up

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    def lead_to(self, port: int) -> None:
        """Connect to another port from the next connection on."""
        self._target = port

    async def cut(self) -> None:
        """Reset every connection there is."""
        for writer in list(self._writers):
            writer.transport.abort()
        for pump in list(self._pumps):
            pump.cancel()
        if self._pumps:
            await asyncio.wait(list(self._pumps), timeout=5)

    async def refuse(self) -> None:
        """Cut, and accept no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut()

    def blackhole(self) -> None:
        """Pass nothing on any more, in either direction."""
        self._passing.clear()

    async def heal(self) -> None:
        """Take a refusal or a blackhole back, on the same port."""
        self._passing.set()
        if self._server is None:
            await self._listen()

    def passed(self, data: bytes) -> bytes:
        """What comes out for what went in, of either direction: a subclass may change it."""
        return data

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(there_writer)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink), name="proxy-pump")
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                await self._passing.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                sink.write(self.passed(data))
                await sink.drain()
        except (OSError, asyncio.CancelledError):
            pass  # cut: the other end is told by the reset
        finally:
            sink.transport.abort()
            self._writers.discard(sink)
