"""Holds a call's message until its handler takes it, so that it can be freed before the call ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class HeldMessage:
    """A message that carries a prompt.

    gRPC and interceptors keep what they hand to a handler for as long as the call lasts: a message of a megabyte for an
    hour, beside the prompt that was made of it.  They keep this instead, which is empty once the handler took the
    message.
    """

    __slots__ = ("_message", "request_id", "tenant")

    def __init__(self, message: Any) -> None:
        self._message = message
        self.request_id: str = getattr(message, "request_id", "")
        self.tenant: str = getattr(message, "tenant", "")

    def take(self) -> Any:
        """Return the message, once."""
        message, self._message = self._message, None
        return message


def holding(decode: Callable[[bytes], Any], kind: type) -> Callable[[bytes], Any]:
    """Return a deserializer that holds what ``decode`` gives, if that is of ``kind``."""

    def deserialize(data: bytes) -> Any:
        message = decode(data)
        return HeldMessage(message) if isinstance(message, kind) else message

    return deserialize
