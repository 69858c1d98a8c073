"""Calls an ASGI application in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sage_gateway.asgi import Application, Message


@dataclass(kw_only=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


async def call(
    application: Application,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    *,
    pieces: int = 1,
) -> Answered:
    """``body``: bytes, or what is sent as JSON."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    size = max(1, -(-len(data) // pieces))
    parts = [data[i : i + size] for i in range(0, len(data), size)] or [b""]
    waiting: list[Message] = [
        {"type": "http.request", "body": part, "more_body": i < len(parts) - 1} for i, part in enumerate(parts)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    path, _, query = path.partition("?")
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": raw}
    await application(scope, receive, send)
    starts = [each for each in sent if each["type"] == "http.response.start"]
    assert len(starts) == 1, sent
    return Answered(
        status=starts[0]["status"],
        headers={name.decode(): value.decode() for name, value in starts[0]["headers"]},
        body=b"".join(each.get("body", b"") for each in sent if each["type"] == "http.response.body"),
    )
