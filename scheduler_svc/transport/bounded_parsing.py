"""Parses messages of callers, and refuses those with more parts than any request needs before they are parsed.

A message of 16 MiB may hold eight million empty parts.  Parsing it alone would hold the event loop for more than
100 ms; the walk below stops at ELEMENTS_LIMIT.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from scheduler_svc.domain.errors import FieldViolation, InvalidRequest

ELEMENTS_LIMIT = 16_384
"""Submessages, strings and single values of one message; packed numbers count as one."""

WALKED_FROM_BYTES = 128 * 1024
"""Smaller messages are parsed at once: they cannot hold enough parts to take more than about a millisecond."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_CONTINUES = 0x80
_LONGEST_SHIFT = 63  # of a number of 64 bits


@dataclass(frozen=True, slots=True)
class Unparsed:
    """Stands for a message that was not parsed."""

    why: str

    def error(self) -> InvalidRequest:
        """Return the error to refuse the call with."""
        return InvalidRequest([FieldViolation(field="message", description=self.why)])


def bounded(parse: Callable[[bytes], Any] | None, *, walk: bool = True) -> Callable[[bytes], Any] | None:
    """Return a deserializer that gives ``Unparsed`` for what cannot be parsed or has too many parts.

    gRPC logs a stack and answers UNKNOWN or INTERNAL for a deserializer that raises, so this one never does.
    ``parse``: a generated message's ``FromString``.  ``walk``: False for executors' messages, whose frames carry the
    steps of hundreds of streams.  None stays None: such a handler takes bytes.
    """
    if parse is None:
        return None
    message = getattr(parse, "__self__", None)
    descriptor: Descriptor | None = getattr(message, "DESCRIPTOR", None)

    def deserialize(data: bytes) -> Any:
        if walk and descriptor is not None and len(data) > WALKED_FROM_BYTES and _too_many(data, descriptor):
            return Unparsed(f"has more than {ELEMENTS_LIMIT} parts")
        try:
            return parse(data)
        except DecodeError:
            name = descriptor.name if descriptor is not None else "message"
            return Unparsed(f"is not a {name}")

    return deserialize


async def parsed(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Pass on a stream of messages.  Raises InvalidRequest at one that was not parsed."""
    async for message in messages:
        if isinstance(message, Unparsed):
            raise message.error()
        yield message


def _too_many(data: bytes, descriptor: Descriptor) -> bool:
    """Return whether the message has more than ELEMENTS_LIMIT parts.  What is malformed is left to the parser."""
    try:
        return _count(data, 0, len(data), descriptor, ELEMENTS_LIMIT) < 0
    except IndexError:  # it ends in mid-field, or holds a number that is too long
        return False


def _count(data: bytes, start: int, end: int, descriptor: Descriptor, left: int) -> int:
    """Subtract the parts between two positions from ``left``; negative once there are too many."""
    fields, position = descriptor.fields_by_number, start
    while position < end and left >= 0:
        tag, position = _varint(data, position)
        left -= 1
        wire_type = tag & 7
        if wire_type == _LENGTH:
            length, position = _varint(data, position)
            field: FieldDescriptor | None = fields.get(tag >> 3)
            if field is not None and field.message_type is not None:
                left = _count(data, position, min(position + length, end), field.message_type, left)
            position += length
        elif wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type == _FIXED64:
            position += 8
        elif wire_type == _FIXED32:
            position += 4
        else:
            return left  # groups are not used, and the parser says what is malformed
    return left


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a number; return it and the position after it."""
    byte = data[position]
    if byte < _CONTINUES:
        return byte, position + 1
    value, shift = byte & 0x7F, 7
    while True:
        position += 1
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < _CONTINUES:
            return value, position + 1
        shift += 7
        if shift > _LONGEST_SHIFT:
            raise IndexError("longer than any number")
