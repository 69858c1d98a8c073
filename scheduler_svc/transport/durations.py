"""Seconds as floats, and google.protobuf.Duration."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration


def to_wire(seconds: float) -> Duration:
    """Negative durations (a clock read twice) become zero."""
    nanos = max(0, round(seconds * 1e9))
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def from_wire(duration: Duration) -> float:
    return float(duration.seconds) + duration.nanos / 1e9
