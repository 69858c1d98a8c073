"""Ports for processes that have to be told one."""

from __future__ import annotations

import socket
from random import SystemRandom

PORTS = range(15_000, 32_000)
"""Below those that Linux gives to connections: none of them takes the port while a service starts again."""


def free_port() -> int:
    """Return a port of loopback that was free just now."""
    return free_ports(1)[0]


def free_ports(number: int) -> list[int]:
    """Return different ports of loopback that were free just now."""
    drawn, free = SystemRandom(), set[int]()
    while len(free) < number:
        port = drawn.choice(PORTS)
        with socket.socket() as taken:
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
        free.add(port)
    return list(free)
