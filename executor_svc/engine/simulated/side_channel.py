"""Connects simulated engines: over TCP between processes, by a plain call inside one process.

Each message and its answer is a small JSON object.  ``pull`` models the time that a transfer takes; only whether the
other engine can be reached is real.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable
from typing import Protocol, cast

from executor_svc.runtime.engine_port import EngineError, JsonValue

Message = dict[str, JsonValue]
Answer = Callable[[Message], Message]

ANSWER_TIMEOUT_S = 5.0  # as long as NIXL waits for a peer
LINE_LIMIT = 1 << 20  # most bytes of a message


class PeerUnreachable(Exception):
    """The other engine is gone, or does not answer."""


def _message(line: bytes) -> Message:
    """Parse one message.  Raises ValueError."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return cast("Message", message)


class Listener(Protocol):
    """The port where one engine answers others."""

    port: int

    def close(self) -> None:
        """Stop answering.  Idempotent."""
        ...


class SideChannel(Protocol):
    """Connects one engine to others."""

    async def listen(self, host: str, port: int, answer: Answer) -> Listener:
        """Answer messages at ``host:port``; port 0 takes a free one.  Raises EngineError if it is taken."""
        ...

    async def ask(self, host: str, port: int, message: Message) -> Message:
        """Send one message and return the answer.  Raises PeerUnreachable."""
        ...


class MemorySideChannel:
    """Connects the engines of one process, which share this object.  Messages take no time."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, int], Answer] = {}
        self._ports = itertools.count(1)

    async def listen(self, host: str, port: int, answer: Answer) -> Listener:
        """Answer messages at ``host:port``; port 0 takes a free one."""
        listener = _MemoryListener(self._answers, (host, port or next(self._ports)))
        self._answers[(host, listener.port)] = answer
        return listener

    async def ask(self, host: str, port: int, message: Message) -> Message:
        """Send one message and return the answer.  Raises PeerUnreachable."""
        answer = self._answers.get((host, port))
        if answer is None:
            raise PeerUnreachable(f"no engine listens at {host}:{port}")
        return answer(message)


class _MemoryListener:
    def __init__(self, answers: dict[tuple[str, int], Answer], address: tuple[str, int]) -> None:
        self._answers = answers
        self._address = address
        self.port = address[1]

    def close(self) -> None:
        self._answers.pop(self._address, None)


class TcpSideChannel:
    """Connects engines over TCP.  Each message has a connection of its own, so a dead peer is noticed at once."""

    async def listen(self, host: str, port: int, answer: Answer) -> Listener:
        """Answer messages at ``host:port``; port 0 takes a free one.  Raises EngineError if it is taken."""
        listener = _TcpListener(answer)
        try:
            await listener.start(host, port)
        except OSError as error:
            raise EngineError(f"the side channel cannot listen on {host}:{port}: {error}") from error
        return listener

    async def ask(self, host: str, port: int, message: Message) -> Message:
        """Send one message and return the answer.  Raises PeerUnreachable, after 5 s at the latest."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await self._ask(host, port, message)
        except TimeoutError as error:
            raise PeerUnreachable(f"{host}:{port} did not answer in {ANSWER_TIMEOUT_S:g} s") from error
        except (OSError, ValueError) as error:
            raise PeerUnreachable(f"{host}:{port}: {error}") from error

    async def _ask(self, host: str, port: int, message: Message) -> Message:
        reader, writer = await asyncio.open_connection(host, port, limit=LINE_LIMIT)
        try:
            writer.write(json.dumps(message).encode() + b"\n")
            return _message(await reader.readline())
        finally:
            writer.transport.abort()


class _TcpListener:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()  # each leaves within ANSWER_TIMEOUT_S
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, host, port, limit=LINE_LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, ValueError, TimeoutError):
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    message = _message(await reader.readline())
                    writer.write(json.dumps(self._answer(message)).encode() + b"\n")
                    await writer.drain()
                    await reader.read()  # until the other end has received it and closes
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
