"""A TCP proxy that a test can cut, so that a client meets a connection that really breaks."""

from __future__ import annotations

import asyncio
from typing import Self


class CuttingProxy:
    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Resets every connection there is; new ones are let through."""
        for writer in self._writers:
            writer.transport.abort()
        pumps = list(self._pumps)
        if pumps:
            await asyncio.wait(pumps, timeout=5)

    async def refuse(self) -> None:
        """Cuts, and accepts no more."""
        self._server.close()
        await self.cut()

    async def accept(self) -> None:
        """Takes a refusal back, on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, there_writer}
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink), name="pump")
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # cut
        finally:
            sink.transport.abort()
            self._writers.discard(sink)
