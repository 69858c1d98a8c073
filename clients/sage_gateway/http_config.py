"""How uvicorn speaks HTTP in the gateway."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from sage_gateway.connections import Connections, bounded

KEEP_ALIVE_S = 75
"""Seconds that a connection without a request stays open: longer than load balancers keep theirs (60 s)."""


def http_config(connections: Connections) -> dict[str, Any]:
    """Return arguments of ``uvicorn.Config``: connections within bounds.

    There are no WebSockets: a connection that becomes one is no longer ``bounded``.
    """
    return {
        "http": bounded(AutoHTTPProtocol, connections),
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "lifespan": "off",
    }
