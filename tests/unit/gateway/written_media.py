"""Images and audio as the clients of each API write them."""

from __future__ import annotations

import base64
from typing import Any

from tests.support.pictures import png


def picture(note: bytes = b"") -> bytes:
    """A PNG of one pixel, with a note behind it."""
    return png(1, 1) + note


def url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def chat_image(data: bytes, kind: str = "png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url(data, kind)}}


def chat_audio(data: bytes, name: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": name}}


def in_responses(data: bytes) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url(data), "detail": "auto"}


def in_messages(data: bytes) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(data).decode()}
    return {"type": "image", "source": source}


def asked(*parts: Any) -> dict[str, Any]:
    """A body of a chat completion, with one message."""
    return {"messages": [{"role": "user", "content": [*parts]}]}
