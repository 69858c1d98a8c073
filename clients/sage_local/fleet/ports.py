"""Checks and finds free TCP ports of this machine."""

from __future__ import annotations

import socket


def why_not_free(address: str) -> str:
    """Return why no process can listen on ``host:port``; empty if one can."""
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError:
        return "the address is not host:port"
    return ""


def free_address() -> str:
    """Return a loopback address whose port is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
