"""Streams of an OpenAI server, read by a client that costs as little as one can: chunks are searched, not parsed."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHUNK = b"data: {"
ERROR = b'data: {"error"'
END = b"data: [DONE]"
USAGE = re.compile(rb'"completion_tokens": ?(\d+)')
READ_BYTES = 1 << 16
KEPT_BYTES = 2_048
"""How much of a stream's end is kept: the usage, the end and what a read cut in two."""

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpStream:
    """How one stream went."""

    tokens: int | None  # that the server says it generated; None: it ended before it said so
    said_why: bool  # an error was sent
    first_s: float  # from before the connection was made to the first chunk
    longest_gap_s: float  # between two reads that brought chunks
    last: bytes  # the end of what came


async def stream(port: int, path: str, fields: Mapping[str, Any]) -> HttpStream:
    """Send one request on a connection of its own, and read its stream to the end or until the server breaks it off.

    Raises OSError if the server cannot be reached.
    """
    body = json.dumps({**fields, "stream": True, "stream_options": {"include_usage": True}}).encode()
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    writer.write(head.encode() + b"\r\nConnection: close\r\n\r\n" + body)
    last, said_why, first_s, gap_s, last_at = b"", False, 0.0, 0.0, 0.0
    try:
        while END not in last and (part := await reader.read(READ_BYTES)):
            last = last[-KEPT_BYTES:] + part
            said_why = said_why or ERROR in last
            if CHUNK not in part:
                continue
            now = time.perf_counter()
            first_s = first_s or now - started
            gap_s = max(gap_s, now - last_at) if last_at else 0.0
            last_at = now
    except ConnectionError:
        pass
    finally:
        writer.close()
    found = USAGE.findall(last)
    whole = found and END in last
    return HttpStream(
        tokens=int(found[-1]) if whole else None,
        said_why=said_why,
        first_s=first_s,
        longest_gap_s=gap_s,
        last=last[-300:],
    )
