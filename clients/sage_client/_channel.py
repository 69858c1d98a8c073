"""The channel to a scheduler, opened anew when the certificates that it was opened with are renewed."""

from __future__ import annotations

import asyncio
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

    async def close(self) -> None:
        """Close the channels; open streams end."""
        self._closed = True
        closing = list(self._closing)
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
