"""Fields that trace formats of JSON lines have in common."""

from __future__ import annotations

from sage_simulator.traces.json_record import JsonRecord
from scheduler_svc.domain.request import Priority


def check_format(record: JsonRecord, name: str, version: int) -> None:
    """Check a header.  Raises TraceError where it is of another format or version."""
    if record.text("format") != name:
        raise record.error("format", f"expected {name!r}, got {record.text('format')!r:.80}")
    if record.tokens("version") != version:
        raise record.error("version", f"this release reads version {version}")


def block_hashes(record: JsonRecord, block_tokens: int, prompt_tokens: int) -> tuple[int, ...]:
    """Return the hashes of a prompt's blocks.  Raises TraceError where the prompt is shorter than they are."""
    hashes = record.integers("block_hashes")
    if len(hashes) * block_tokens > prompt_tokens:
        raise record.error(
            "block_hashes", f"{len(hashes)} blocks of {block_tokens} tokens in a prompt of {prompt_tokens}"
        )
    return hashes


def optional_number(record: JsonRecord, field: str) -> float | None:
    """Return a number; None where the field is missing.  Raises TraceError."""
    return record.number(field) if record.has(field) else None


def optional_text(record: JsonRecord, field: str, default: str = "") -> str:
    """Return a text; ``default`` where the field is missing.  Raises TraceError."""
    return record.text(field) if record.has(field) else default


def priority(record: JsonRecord) -> Priority:
    """Return the class that the field ``priority`` names.  Raises TraceError."""
    name = record.text("priority")
    if name not in Priority.__members__:
        raise record.error("priority", f"expected one of {', '.join(Priority.__members__)}, got {name!r:.80}")
    return Priority[name]
