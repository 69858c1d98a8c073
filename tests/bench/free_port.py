"""A port for a process that has to be told one."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Of loopback; it was free just now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
