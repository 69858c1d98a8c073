"""The simulator's own trace format: JSONL, a header and then a line per request; no prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.json_record import JsonRecord
from sage_simulator.traces.request_fields import block_hashes, check_format, optional_number, optional_text, priority
from sage_simulator.traces.source_lines import source_lines
from scheduler_svc.domain.request import Priority

FORMAT = "sage_trace"
VERSION = 1

# By field; MISSING where a field is always written.
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(TracedRequest)}


def dump(trace: Iterable[TracedRequest], path: Path) -> None:
    """Write a trace; a field at its default is left out.  Raises ValueError on an infinite number, and OSError."""
    with path.open("w", encoding="utf-8") as file:
        file.write(_line({"format": FORMAT, "version": VERSION}))
        for request in trace:
            file.write(_line(_stated(request)))


def load(path: Path) -> list[TracedRequest]:
    """Return the trace of a file, sorted by arrival.  Raises TraceError and OSError."""
    return sorted(read_own(path), key=lambda request: request.arrival_s)


def read_own(path: Path) -> Iterator[TracedRequest]:
    """Yield the requests as the file has them.  Raises TraceError, also for a field that the format lacks."""
    lines = source_lines(path)
    for line in lines:
        check_format(JsonRecord.of(line), FORMAT, VERSION)
        break
    for line in lines:
        record = JsonRecord.of(line)
        for field in record.fields:
            if field not in _DEFAULTS:
                raise record.error(field, "the format has no such field")
        yield _request(record)


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, allow_nan=False, separators=(",", ":")) + "\n"


def _stated(request: TracedRequest) -> dict[str, Any]:
    values = {name: getattr(request, name) for name in _DEFAULTS}
    stated = {name: value for name, value in values.items() if _DEFAULTS[name] is MISSING or value != _DEFAULTS[name]}
    if "priority" in stated:
        stated["priority"] = request.priority.name
    return stated


def _request(record: JsonRecord) -> TracedRequest:
    prompt_tokens = record.tokens("prompt_tokens")
    block_tokens = record.tokens("block_tokens") if record.has("block_tokens") else _DEFAULTS["block_tokens"]
    return TracedRequest(
        arrival_s=record.number("arrival_s"),
        prompt_tokens=prompt_tokens,
        output_tokens=record.tokens("output_tokens"),
        block_hashes=block_hashes(record, block_tokens, prompt_tokens),
        block_tokens=block_tokens,
        max_tokens=record.tokens("max_tokens") if record.has("max_tokens") else None,
        priority=priority(record) if record.has("priority") else Priority.NORMAL,
        ttft_target_s=optional_number(record, "ttft_target_s"),
        tpot_target_s=optional_number(record, "tpot_target_s"),
        deadline_s=optional_number(record, "deadline_s"),
        tenant=optional_text(record, "tenant", _DEFAULTS["tenant"]),
        session=optional_text(record, "session", _DEFAULTS["session"]),
        model=optional_text(record, "model", _DEFAULTS["model"]),
        cancel_after_s=optional_number(record, "cancel_after_s"),
    )
