"""The channel to a scheduler, opened anew when the certificates that it was opened with are renewed."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import grpc

from sage.controlplane.v1 import admin_pb2_grpc, inference_pb2_grpc
from sage_client._connection import Connection
from sage_client._errors import ConfigurationError, UnavailableError

log = logging.getLogger(__name__)

CHECK_S = 1.0
"""Seconds between two looks at the files."""

LOOK_EVERY_S = 0.02
"""Seconds between two looks at whether there is a connection, while somebody waits for one."""

OLD_STREAMS_S = 3_600.0
"""Seconds that streams of the channel before may go on."""


class Channel:
    """The stubs of one scheduler.  Belongs to the event loop of the first call, which opens it.

    A certificate is used for whole connections, so a renewed one needs a new channel: calls go there, and what is open
    on the one before goes on.
    """

    def __init__(self, connection: Connection, clock: Callable[[], float] = monotonic) -> None:
        """Check the connection's settings.  Raises as ``Connection.check``."""
        connection.check()
        self._connection = connection
        self._clock = clock
        self._files = tuple(
            file for file in (connection.tls_ca, connection.tls_cert, connection.tls_key) if file is not None
        )
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None  # None: no call came yet
        self._seen, self._looked_at = _states(self._files), clock()
        self._connecting: asyncio.Task[None] | None = None  # ends when there is a connection, or nobody waits for one
        self._awaited_until = 0.0  # on the event loop's clock

    def check(self) -> None:
        """Raise UnavailableError if the channels were closed, or belong to another event loop."""
        if self._closed:
            raise UnavailableError("the client is closed", status="UNAVAILABLE")
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise UnavailableError("the client belongs to another event loop: make one for each", status="UNAVAILABLE")

    @property
    def inference(self) -> inference_pb2_grpc.InferenceServiceAsyncStub:
        """The stub for a new call.  Raises as ``check``."""
        self._renew()
        return self._inference

    @property
    def admin(self) -> admin_pb2_grpc.AdminServiceAsyncStub:
        """The stub for a new call.  Raises as ``check``."""
        self._renew()
        return self._admin

    async def connected(self, limit_s: float) -> None:
        """Wait at most ``limit_s`` seconds for a connection to come; all of them if there is one already."""
        loop = asyncio.get_running_loop()
        if self._closed or self._loop is not loop or self._is_connected():
            await asyncio.sleep(limit_s)
            return
        self._awaited_until = max(self._awaited_until, loop.time() + limit_s)
        if self._connecting is None or self._connecting.done():
            self._connecting = loop.create_task(self._look(), name="sage-connecting", context=contextvars.Context())
        await asyncio.wait([self._connecting], timeout=limit_s)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closed and not self._is_connected() and loop.time() < self._awaited_until:
            await asyncio.sleep(LOOK_EVERY_S)

    def _is_connected(self) -> bool:
        return bool(self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY)

    async def close(self) -> None:
        """Close the channels; open streams end."""
        self._closed = True
        closing = list(self._closing)
        if self._connecting is not None:
            closing.append(self._connecting)
        for each in closing:
            each.cancel()
        if self._loop is not None:
            await asyncio.gather(self._channel.close(), *closing, return_exceptions=True)

    def _use(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._inference = inference_pb2_grpc.InferenceServiceStub(channel)
        self._admin = admin_pb2_grpc.AdminServiceStub(channel)

    def _renew(self) -> None:
        """Open another channel if a file changed; with files that cannot be used, go on with the one there is."""
        self.check()
        if self._loop is None:
            self._use(self._connection.open())
            self._loop = asyncio.get_running_loop()
        if not self._files or self._clock() < self._looked_at + CHECK_S:
            return
        self._looked_at = self._clock()
        states = _states(self._files)
        if states == self._seen:
            return
        try:
            channel = self._connection.open()
        except ConfigurationError as error:
            log.warning("the certificates read before are still used: %s", error)
            return
        self._seen = states
        old = asyncio.ensure_future(_close_later(self._channel))
        self._closing.add(old)
        old.add_done_callback(self._closing.discard)
        self._use(channel)


async def _close_later(channel: grpc.aio.Channel) -> None:
    try:
        await channel.close(OLD_STREAMS_S)
    except asyncio.CancelledError:
        await channel.close()
        raise


def _states(files: tuple[Path, ...]) -> tuple[tuple[int, int, int] | None, ...]:
    return tuple(map(_state, files))


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
