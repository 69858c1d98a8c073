"""How simulated engines reach one another: over TCP between processes, by a plain call inside one.

One message, one answer, each a small JSON object.  The time a transfer takes is modelled elsewhere; what is real is
whether the other engine can be reached.
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

ANSWER_WITHIN_S = 5.0  # as long as NIXL waits for a peer
LINE_LIMIT = 1 << 20  # bytes of a message


class PeerUnreachable(Exception):
    """The other engine is gone, or does not answer."""


def _message(line: bytes) -> Message:
    """Parse one message.  Raises ValueError."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return cast("Message", message)


class Listener(Protocol):
    """A place where one engine answers others."""

    port: int

    def close(self) -> None:
        """Take no more messages.  Idempotent."""
        ...


class SideChannel(Protocol):
    """How one engine reaches another."""

    async def listen(self, host: str, port: int, answer: Answer) -> Listener:
        """Answer messages at ``host:port``; port 0 takes a free one.  Raises EngineError if it is taken."""
        ...

    async def ask(self, host: str, port: int, message: Message) -> Message:
        """Send one message and return the answer.  Raises PeerUnreachable."""
        ...


class MemorySideChannel:
    """Connects engines of one process; no message takes time.  All that are to meet share one object."""

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
            raise PeerUnreachable(f"nobody listens at {host}:{port}")
        return answer(message)


class _MemoryListener:
    def __init__(self, answers: dict[tuple[str, int], Answer], address: tuple[str, int]) -> None:
        self._answers = answers
        self._address = address
        self.port = address[1]

    def close(self) -> None:
        self._answers.pop(self._address, None)


class TcpSideChannel:
    """Connects engines over TCP, a connection per message: a dead peer shows at once."""

    async def listen(self, host: str, port: int, answer: Answer) -> Listener:
        """Answer messages at ``host:port``; port 0 takes a free one.  Raises EngineError if it is taken."""
        listener = _TcpListener(answer)
        try:
            await listener.start(host, port)
        except OSError as error:
            raise EngineError(f"the side channel cannot have {host}:{port}: {error}") from error
        return listener

    async def ask(self, host: str, port: int, message: Message) -> Message:
        """Send one message and return the answer.  Raises PeerUnreachable, after 5 s at the latest."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await self._ask(host, port, message)
        except TimeoutError as error:
            raise PeerUnreachable(f"{host}:{port} did not answer in {ANSWER_WITHIN_S:g} s") from error
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
        self._writers: set[asyncio.StreamWriter] = set()  # each leaves within ANSWER_WITHIN_S
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
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    message = _message(await reader.readline())
                    writer.write(json.dumps(self._answer(message)).encode() + b"\n")
                    await writer.drain()
                    await reader.read()  # until the other end has taken it
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
