"""Checks the lines of a batch before any of them runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from scheduler_svc.control.batches.line_codec import LineCodec, LineFault
from scheduler_svc.control.batches.line_reader import LineTooLong, RawLine
from scheduler_svc.control.batches.settings import BatchSettings
from scheduler_svc.control.journal.batches import LineError

ERRORS_KEPT = 20
"""Errors that a batch names at most."""

LINES_AT_ONCE = 32
"""Lines that are looked at in one turn of the event loop."""


async def validated(
    lines: AsyncIterator[RawLine], codec: LineCodec, endpoint: str, settings: BatchSettings
) -> tuple[int, list[LineError]]:
    """Return the number of lines, and what keeps the batch from running: the first ERRORS_KEPT errors."""
    seen: set[str] = set()
    errors: list[LineError] = []
    count = 0
    try:
        async for raw in lines:
            count = raw.index + 1
            if count > settings.lines:
                problem = f"the file has more than {settings.lines} lines (batches.lines)"
                return count, [LineError(code="too_many_lines", message=problem)]
            error = _fault(raw, codec, endpoint, seen)
            if error is not None:
                errors.append(error)
                if len(errors) == ERRORS_KEPT:
                    break
            if not count % LINES_AT_ONCE:
                await asyncio.sleep(0)  # others get their turn
    except LineTooLong as too_long:
        problem = f"the line has more than {settings.line_bytes} bytes (batches.line_bytes)"
        errors.append(LineError(code="line_too_long", message=problem, line=too_long.number))
    if not count and not errors:
        errors.append(LineError(code="empty_file", message="the file has no lines"))
    return count, errors


def _fault(raw: RawLine, codec: LineCodec, endpoint: str, seen: set[str]) -> LineError | None:
    try:
        line = codec.parse(raw.content, raw.index, endpoint)
    except LineFault as fault:
        return LineError(code=fault.code, message=str(fault), param=fault.param, line=raw.number)
    if line.custom_id in seen:
        problem = f"custom_id {line.custom_id!r} is that of an earlier line"
        return LineError(code="duplicate_custom_id", message=problem, param="custom_id", line=raw.number)
    seen.add(line.custom_id)
    return None
