"""The simulator's own trace format: JSONL, a header and then a line per request; no prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.json_record import JsonRecord
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
        _check_header(JsonRecord.of(line))
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


def _check_header(record: JsonRecord) -> None:
    if record.text("format") != FORMAT:
        raise record.error("format", f"expected {FORMAT!r}, got {record.text('format')!r:.80}")
    if record.tokens("version") != VERSION:
        raise record.error("version", f"this release reads version {VERSION}")


def _request(record: JsonRecord) -> TracedRequest:
    prompt_tokens = record.tokens("prompt_tokens")
    block_tokens = record.tokens("block_tokens") if record.has("block_tokens") else _DEFAULTS["block_tokens"]
    block_hashes = record.integers("block_hashes")
    if len(block_hashes) * block_tokens > prompt_tokens:
        raise record.error(
            "block_hashes", f"{len(block_hashes)} blocks of {block_tokens} tokens in a prompt of {prompt_tokens}"
        )
    return TracedRequest(
        arrival_s=record.number("arrival_s"),
        prompt_tokens=prompt_tokens,
        output_tokens=record.tokens("output_tokens"),
        block_hashes=block_hashes,
        block_tokens=block_tokens,
        max_tokens=record.tokens("max_tokens") if record.has("max_tokens") else None,
        priority=_priority(record),
        ttft_target_s=_seconds(record, "ttft_target_s"),
        tpot_target_s=_seconds(record, "tpot_target_s"),
        deadline_s=_seconds(record, "deadline_s"),
        tenant=_text(record, "tenant"),
        session=_text(record, "session"),
        model=_text(record, "model"),
        cancel_after_s=_seconds(record, "cancel_after_s"),
    )


def _seconds(record: JsonRecord, field: str) -> float | None:
    return record.number(field) if record.has(field) else None


def _text(record: JsonRecord, field: str) -> str:
    return record.text(field) if record.has(field) else str(_DEFAULTS[field])


def _priority(record: JsonRecord) -> Priority:
    if not record.has("priority"):
        return Priority.NORMAL
    name = record.text("priority")
    if name not in Priority.__members__:
        raise record.error("priority", f"expected one of {', '.join(Priority.__members__)}, got {name!r:.80}")
    return Priority[name]
