"""Reads the files of batches' answers, line by line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from sage_client._batches import BatchAnswer
from sage_client._errors import ProtocolError

LINE_LIMIT_BYTES = 64 * 1024 * 1024
"""Longest line of an output file that is read; the scheduler keeps no answer of that length."""


def answer_of_line(line: bytes) -> BatchAnswer:
    """Decode a line of an output file or an error file.  Raises ProtocolError."""
    try:
        found = json.loads(line)
        response, error = found.get("response") or {}, found.get("error") or {}
        return BatchAnswer(
            custom_id=str(found["custom_id"]),
            status_code=int(response.get("status_code") or 0),
            body=response.get("body"),
            error_code=str(error.get("code") or "error") if error else "",
            error=str(error.get("message") or "") or _message(response.get("body")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as failure:
        raise ProtocolError(f"a line of a batch's output is none: {line[:200]!r}") from failure


def _message(body: Any) -> str:
    """Return the words of an error that came as an answer's body; empty if it is none."""
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message") or "") if isinstance(error, dict) else ""


async def lines_of(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines of a file that comes in pieces, without empty ones.  Raises ProtocolError if one is too long."""
    rest = bytearray()
    async for piece in pieces:
        rest += piece
        *whole, last = rest.split(b"\n")
        for each in whole:
            if each.strip():
                yield bytes(each)
        rest = last
        if len(rest) > LINE_LIMIT_BYTES:
            raise ProtocolError(f"a line of a batch's output has more than {LINE_LIMIT_BYTES} bytes")
    if rest.strip():
        yield bytes(rest)
