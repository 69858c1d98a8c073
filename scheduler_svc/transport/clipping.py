"""Shortens texts that others wrote to a number of bytes, or refuses them."""

from __future__ import annotations

from scheduler_svc.domain.errors import FieldViolation, InvalidRequest

REASON_BYTES = 1_024  # of a reason that a caller gives; it is logged and kept with the request or instance
REPORT_BYTES = 4_096  # of a text in an executor's report


def size_of(text: str) -> int:
    """Return the bytes that a text takes in UTF-8."""
    return len(text.encode(errors="replace"))


def clipped(text: str, limit: int) -> str:
    """Shorten ``text`` to at most ``limit`` bytes of UTF-8."""
    if 4 * len(text) <= limit:
        return text
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return text
    return encoded[: limit - 3].decode(errors="ignore") + "..."


def reported(text: str) -> str:
    """Shorten a text of an executor's report: a report is not refused for its length."""
    return clipped(text, REPORT_BYTES)


def stated_reason(text: str) -> str:
    """Return the reason that a caller gave.  Raises InvalidRequest if it is longer than REASON_BYTES."""
    size = size_of(text)
    if size > REASON_BYTES:
        description = f"has {size} bytes; the limit is {REASON_BYTES}"
        raise InvalidRequest([FieldViolation(field="reason", description=description)])
    return text
