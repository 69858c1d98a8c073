"""A TCP port that nobody else is given until whoever it is for listens on it."""

from __future__ import annotations

import socket

from executor_svc.runtime.engine_port import EngineError


class PortReservation:
    """Bound, never listening.  A listener that sets SO_REUSEADDR, as ZeroMQ does, can have the port all the same;
    the kernel gives it to nobody who asks for any free one.
    """

    def __init__(self, host: str, port: int) -> None:
        """``port`` 0 takes a free one.  Raises EngineError: the host is not this machine's, or the port is taken."""
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
            raise EngineError(f"the side channel cannot have {host}:{port}: {error}") from error
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()
