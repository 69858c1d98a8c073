"""Converts between seconds as floats and ``google.protobuf.Duration``."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

LIMIT_S = 315_576_000_000.0
"""The longest a google.protobuf.Duration may be: about 10,000 years."""

_NANOS = 1_000_000_000


def to_wire(seconds: float) -> Duration:
    """Return ``seconds`` as a Duration: at least zero, at most ``LIMIT_S``."""
    duration = Duration()
    fill(duration, seconds)
    return duration


def fill(duration: Duration, seconds: float) -> None:
    """Set a Duration, which is a field of a message, to what ``to_wire`` returns: without a copy."""
    if not 0.0 < seconds < LIMIT_S:
        seconds = LIMIT_S if seconds > 0.0 else 0.0
    whole = int(seconds)
    nanos = round((seconds - whole) * _NANOS)
    if nanos == _NANOS:
        whole, nanos = whole + 1, 0
    duration.seconds, duration.nanos = whole, nanos


def from_wire(duration: Duration) -> float:
    """Return the seconds of a Duration; it may be negative."""
    return float(duration.seconds) + duration.nanos / _NANOS
