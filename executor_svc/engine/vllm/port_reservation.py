"""Reserves a TCP port, so that the kernel gives it to no other process before vLLM listens on it."""

from __future__ import annotations

import socket

from executor_svc.runtime.engine_port import EngineError


class PortReservation:
    """A socket that is bound to the port and never listens.

    A listener that sets SO_REUSEADDR, as ZeroMQ does, can still use the port; a process that asks for any free port
    does not get it.
    """

    def __init__(self, host: str, port: int) -> None:
        """Reserve ``port``; 0 picks a free one.

        Raises EngineError if ``host`` is not an address of this machine or the port is in use.
        """
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._socket = socket.socket(family, kind, protocol)
        except OSError as error:
            raise EngineError(f"side_channel_host {host}: {error}") from error
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise EngineError(f"the side channel cannot listen on {host}:{port}: {error}") from error
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Release the port.  Idempotent."""
        self._socket.close()
