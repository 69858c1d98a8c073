"""Reads traces from files."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import fields
from importlib import util
from pathlib import Path
from typing import Any

from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.request import Priority

_READERS = "sage_simulator.traces"  # reads the formats of published traces, where it is there
_KEYS = frozenset(each.name for each in fields(TracedRequest))
_NEEDED = ("arrival_s", "prompt_tokens", "output_tokens")


class TraceError(ValueError):
    """A trace cannot be read; the message names file and line."""


def read_trace_file(path: Path) -> list[TracedRequest]:
    """Read a trace, in order of arrival.  Raises TraceError.

    The format is one JSON object per line, whose keys are the fields of ``TracedRequest``.
    """
    if util.find_spec(_READERS) is not None:
        read: list[TracedRequest] = importlib.import_module(_READERS).read_trace(path)
        return read
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise TraceError(f"{path}: {e}") from None
    trace = [_request(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not trace:
        raise TraceError(f"{path}: no request in it")
    return sorted(trace, key=lambda each: each.arrival_s)


def _request(line: str, where: str) -> TracedRequest:
    try:
        values = json.loads(line)
    except ValueError as e:
        raise TraceError(f"{where}: no JSON object: {e}") from None
    if not isinstance(values, Mapping):
        raise TraceError(f"{where}: no JSON object")
    unknown = sorted(values.keys() - _KEYS)
    missing = [key for key in _NEEDED if key not in values]
    if unknown or missing:
        raise TraceError(
            f"{where}: unknown keys: {', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}"
        )
    return _checked(dict(values), where)


def _checked(values: dict[str, Any], where: str) -> TracedRequest:
    try:
        if "priority" in values:
            values["priority"] = Priority[str(values["priority"]).upper()]
        if "block_hashes" in values:
            values["block_hashes"] = tuple(map(int, values["block_hashes"]))
        values["arrival_s"] = float(values["arrival_s"])
        for key in ("prompt_tokens", "output_tokens"):
            values[key] = int(values[key])
            if values[key] < 1:
                raise TraceError(f"{where}: {key}: {values[key]} is not at least 1")
    except (KeyError, TypeError, ValueError) as e:
        raise e if isinstance(e, TraceError) else TraceError(f"{where}: {e!r}") from None
    if not 0 <= values["arrival_s"] < float("inf"):
        raise TraceError(f"{where}: arrival_s: {values['arrival_s']} is not a time since the trace began")
    return TracedRequest(**values)
