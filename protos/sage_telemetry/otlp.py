"""Calls to an OTLP receiver: bounded in time, told apart by whether trying again may help."""

from __future__ import annotations

import grpc

from sage_telemetry.endpoints import OtlpEndpoint

# https://opentelemetry.io/docs/specs/otlp/#failures
_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # shares no connection, and so no flow control, with the service's own
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 10_000),
    ("grpc.max_send_message_length", -1),
]


def open_channel(endpoint: OtlpEndpoint) -> grpc.Channel:
    """Connects by itself, with the first call."""
    if endpoint.secure:
        return grpc.secure_channel(endpoint.target, grpc.ssl_channel_credentials(), OPTIONS)
    return grpc.insecure_channel(endpoint.target, OPTIONS)


def may_retry(error: grpc.RpcError) -> bool:
    return error.code() in _RETRYABLE


def why(error: grpc.RpcError) -> str:
    """One line."""
    return f"{error.code().name}: {' '.join((error.details() or '').split())[:200]}"
