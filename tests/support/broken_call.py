"""Whether a call ended because the connection did, for calls of a generated stub."""

from __future__ import annotations

import grpc


def is_break(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the connection broke, for an error without a reason of the server.

    gRPC ends a call that reaches a server in the moment that this stops with CANCELLED.
    """
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
