"""The socket that a gateway listens on."""

from __future__ import annotations

import socket


def listening_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that is bound to an address.  Raises OSError.

    ``shared``: other processes may listen on the same port; the kernel spreads connections over them.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
