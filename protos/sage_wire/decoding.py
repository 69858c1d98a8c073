"""Decodes a peer's messages without raising: gRPC logs a stack for each message whose decoding raises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Stands for a message that could not be decoded."""

    why: str  # completes a sentence that begins with what it was


def decoder(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a deserializer that gives ``Undecodable`` where ``parse``, a message's ``FromString``, raises."""
    message = getattr(parse, "__self__", None)
    name = message.DESCRIPTOR.name if message is not None else "message"

    def decode(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return Undecodable(f"is not a {name}")

    return decode
