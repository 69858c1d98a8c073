"""Options of channels and servers that find out whether the peer is still there."""

from __future__ import annotations


def keepalive(time_s: float, timeout_s: float) -> tuple[tuple[str, int], ...]:
    """Return gRPC options: ping after ``time_s`` of silence, and give the connection up ``timeout_s`` later.

    gRPC's own defaults would have the last word: 60 s for the answer to the pings by which it measures the bandwidth,
    which stand in for those of the keepalive, and one ping a minute once two have met nothing that was sent.

    The pings for the bandwidth come with every burst of data, so they may take as long as silence and answer together:
    a peer that is stopped for less keeps its connection.
    """
    time_ms, timeout_ms = int(time_s * 1_000), int(timeout_s * 1_000)
    return (
        ("grpc.keepalive_time_ms", time_ms),
        ("grpc.keepalive_timeout_ms", timeout_ms),
        ("grpc.http2.ping_timeout_ms", time_ms + timeout_ms),
        ("grpc.http2.max_pings_without_data", 0),
    )
