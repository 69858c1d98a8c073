"""Lengths of time, as callers write them."""

from __future__ import annotations

import math
import re
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from sage_client._field_faults import FieldFaults

Seconds = float | str | timedelta
"""A length of time: a number of seconds, a text such as "500ms", "10s", "1.5m", "2h", or a timedelta."""

_WITH_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h)?")
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, None: 1.0}


def duration(value: Seconds) -> Duration:
    """Encode a length of time: seconds, a timedelta, or a text such as "500ms", "10s", "1.5m", "2h".

    Raises:
        ValueError: the value is not finite, too large for a duration, or no length of time.
        TypeError: it is none of these.
    """
    found = seconds_of(value)
    if not math.isfinite(found):
        raise ValueError(f"{value} is not a finite number of seconds")
    message = Duration()
    message.FromNanoseconds(round(found * 1e9))
    return message


def seconds_of(value: Seconds) -> float:
    """Return a length of time in seconds.  Raises what ``duration`` raises."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, str):
        return float(value)
    found = _WITH_UNIT.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{value!r} is not a length of time such as 500ms, 10s, 1.5m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def timeout_of(timeout: Seconds | None, deadline: Seconds | None, *, default_s: float, grace_s: float) -> float:
    """Return the seconds that a call may take: ``timeout``, else ``grace_s`` more than ``deadline``, or the default.

    Raises:
        InvalidRequestError: one of them is no length of time; names it.
    """
    faults, found_s = FieldFaults(), default_s
    if timeout:
        with faults.at("timeout"):
            found_s = seconds_of(timeout)
    elif deadline is not None:
        with faults.at("deadline"):
            found_s = seconds_of(deadline) + grace_s
    faults.raise_any()
    return found_s
