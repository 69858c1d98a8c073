"""Seconds as floats, and google.protobuf.Duration."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

LIMIT_S = 315_576_000_000.0
"""The longest a google.protobuf.Duration may be: about 10,000 years."""


def to_wire(seconds: float) -> Duration:
    """Negative durations (a clock read twice) become zero; what is longer than one may be becomes the longest."""
    nanos = round(max(0.0, min(seconds, LIMIT_S)) * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def from_wire(duration: Duration) -> float:
    return float(duration.seconds) + duration.nanos / 1e9
