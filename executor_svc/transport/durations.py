"""Seconds as floats to google.protobuf.Duration and back."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

_NANOS = 1_000_000_000


def to_wire(seconds: float) -> Duration:
    nanos = max(0, round(seconds * _NANOS))
    return Duration(seconds=nanos // _NANOS, nanos=nanos % _NANOS)


def from_wire(duration: Duration) -> float:
    return float(duration.seconds) + duration.nanos / _NANOS
