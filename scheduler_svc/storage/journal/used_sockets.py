"""The connections to PostgreSQL that threads use now, so that a wait for a server that hangs can be ended."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class _Use:
    connection: Any  # the driver's
    since: float  # on the monotonic clock


class UsedSockets:
    """Knows which thread uses which connection.

    A server's own time limits do not count while its process is stopped, and its machine goes on to acknowledge: such a
    wait has no end but this one.
    """

    def __init__(self, *, on: bool) -> None:
        """``on`` is False for SQLite, which has no sockets."""
        self._on = on
        self._lock = threading.Lock()
        self._uses: dict[int, _Use] = {}  # by thread

    @contextmanager
    def of(self, connection: Connection) -> Iterator[None]:
        """Note that this thread uses a connection."""
        if not self._on:
            yield
            return
        thread = threading.get_ident()
        with self._lock:
            self._uses[thread] = _Use(connection.connection.driver_connection, time.monotonic())
        try:
            yield
        finally:
            with self._lock:
                self._uses.pop(thread, None)

    def break_off(self, thread: int | None) -> None:
        """Shut the connection that a thread uses down: what it waits for fails."""
        with self._lock:
            use = self._uses.get(thread) if thread is not None else None
            if use is not None:
                _shut(use.connection)

    def break_off_all(self) -> None:
        """Shut all connections down that are in use."""
        self.break_off_older(time.monotonic())

    def break_off_older(self, since: float) -> None:
        """Shut down all connections that have been in use since this time, or longer."""
        with self._lock:
            for use in self._uses.values():
                if use.since <= since:
                    _shut(use.connection)


def _shut(connection: Any) -> None:
    with suppress(OSError, Exception):
        shut = socket.socket(fileno=os.dup(connection.fileno()))
        try:
            shut.shutdown(socket.SHUT_RDWR)
        finally:
            shut.close()
