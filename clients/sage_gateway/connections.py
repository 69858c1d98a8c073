"""The HTTP connections of one process: how many there may be, and how long one may stay without a request."""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Any

log = logging.getLogger(__name__)

MOST = 10_000
"""Connections of one process, where it may open so many files."""

OTHER_FILES = 100
"""Files that a process keeps open beside its connections from callers."""

REQUEST_S = 15.0
"""Seconds in which the head of a request must have arrived, from the connection's, or the head's, first byte on."""

SAID_EVERY_S = 60.0
"""Seconds between two log lines about connections that find no room."""


def most_connections() -> int:
    """Let this process open as many files as MOST connections need, if it may; return how many it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST if soft == resource.RLIM_INFINITY else max(1, min(MOST, soft - OTHER_FILES))


class Connections:
    """Bounds connections in number, and in the time that they may stay without a request."""

    def __init__(self, most: int, request_s: float = REQUEST_S) -> None:
        self._most = most
        self._request_s = request_s
        self._open: set[object] = set()
        self._without_request: dict[object, asyncio.Transport] = {}  # the oldest first
        self._said_at: float | None = None

    def opened(self, connection: object, transport: asyncio.Transport) -> asyncio.TimerHandle:
        """Note a new connection, and return the timer that closes it if it does not ask.

        At the bound the one that has waited longest for a request is closed; where all have asked, this one is.
        """
        self._open.add(connection)
        if len(self._open) > self._most:
            oldest, its_transport = next(iter(self._without_request.items()), (connection, transport))
            its_transport.abort()
            self.closed(oldest)  # its end is told later, after others that are new now
            self.say_full(f"all {self._most} connections are taken")
        return self.waits(connection, transport)

    def waits(self, connection: object, transport: asyncio.Transport) -> asyncio.TimerHandle:
        """Note that a connection is to send the head of a request; return the timer that closes it."""
        self._without_request[connection] = transport
        return asyncio.get_running_loop().call_later(self._request_s, transport.abort)

    def asked(self, connection: object) -> None:
        """Note that the head of a connection's request is there."""
        self._without_request.pop(connection, None)

    def closed(self, connection: object) -> None:
        """Forget a connection."""
        self._open.discard(connection)
        self._without_request.pop(connection, None)

    def say_full(self, why: str) -> None:
        """Log that connections find no room, seldom."""
        now = asyncio.get_running_loop().time()
        if self._said_at is None or now - self._said_at >= SAID_EVERY_S:
            self._said_at = now
            log.warning("new connections find no room: %s", why)

    def loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an error of the event loop: asyncio says thousands of times a second that it has no file left."""
        if "out of system resource" in str(context.get("message")):
            self.say_full(str(context.get("exception")))
        else:
            loop.default_exception_handler(context)


def bounded(base: type[Any], connections: Connections) -> type[Any]:
    """Return uvicorn's HTTP protocol, ``base``, with these bounds.

    uvicorn itself waits without end for the first byte of a connection and for the rest of a request's head.
    """

    class BoundedProtocol(base):  # type: ignore[misc]  # the base class is an argument
        """One connection."""

        _waiting: asyncio.TimerHandle | None = None  # for the head of a request

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._waiting = connections.opened(self, transport)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
            elif self._waiting is None:
                self._waiting = connections.waits(self, self.transport)

        def connection_lost(self, error: Exception | None) -> None:
            self._stop_waiting()
            connections.closed(self)
            super().connection_lost(error)

        def _stop_waiting(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None
                connections.asked(self)

    return BoundedProtocol
