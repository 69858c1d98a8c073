"""Parses messages of callers, and refuses those with more parts than any request needs before they are parsed.

A message of 16 MiB may hold eight million empty parts.  Parsing it alone would hold the event loop for more than
100 ms; the walk below stops at ELEMENTS_LIMIT.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from sage_wire.protocol import MAX_MESSAGE_BYTES
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest

ELEMENTS_LIMIT = 48 * 1024
"""Submessages, strings and single values of one message: as many as a request has that is at all its limits.

NUMBERS_PER_PART packed numbers count as one.
"""

NUMBERS_PER_PART = 128

SMALL_MESSAGE_BYTES = 64 * 1024
"""Largest message of a call that carries no prompt: only names, settings and a reason."""

WALKED_FROM_BYTES = 128 * 1024
"""Smaller messages are parsed at once: they cannot hold enough parts to take more than about a millisecond."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_GROUP = (3, 4)  # the start and the end of a group: parsers skip groups that they do not know, and so does the walk
_CONTINUES = 0x80
_NOT_LAST = bytes(range(_CONTINUES, 256))  # bytes that another one of the same number follows
_LONGEST_SHIFT = 63  # of a number of 64 bits


Shape: TypeAlias = "dict[int, Shape | None]"
"""Fields of a type of message by number: the shape of a submessage, None for packed numbers; others are left out."""


@dataclass(frozen=True, slots=True)
class Unparsed:
    """Stands for a message that was not parsed."""

    why: str

    def error(self) -> InvalidRequest:
        """Return the error to refuse the call with."""
        return InvalidRequest([FieldViolation(field="message", description=self.why)])


def bounded(
    parse: Callable[[bytes], Any] | None, *, walk: bool = True, size_limit: int = MAX_MESSAGE_BYTES
) -> Callable[[bytes], Any] | None:
    """Return a deserializer that gives ``Unparsed`` for what cannot be parsed, is too large or has too many parts.

    gRPC logs a stack and answers UNKNOWN or INTERNAL for a deserializer that raises, so this one never does.
    ``parse``: a generated message's ``FromString``.  ``walk``: False for executors' messages, whose frames carry the
    steps of hundreds of streams.  ``size_limit``: in bytes.  None stays None: such a handler takes bytes.
    """
    if parse is None:
        return None
    message = getattr(parse, "__self__", None)
    descriptor: Descriptor | None = getattr(message, "DESCRIPTOR", None)

    def deserialize(data: bytes) -> Any:
        if len(data) > size_limit:
            return Unparsed(f"has {len(data)} bytes; the limit is {size_limit}")
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
        del message  # the next one may be long in coming


def _too_many(data: bytes, descriptor: Descriptor) -> bool:
    """Return whether the message has more than ELEMENTS_LIMIT parts.  What is malformed is left to the parser."""
    try:
        return _count(data, 0, len(data), _shape(descriptor), ELEMENTS_LIMIT) < 0
    except IndexError:  # it ends in mid-field, or holds a number that is too long
        return False


@cache
def _shape(descriptor: Descriptor) -> Shape:
    """Return the shape of a type of message; the contract's messages hold none of their own type."""
    shape: Shape = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            shape[field.number] = _shape(field.message_type)
        elif field.is_packed:
            shape[field.number] = None
    return shape


def _count(data: bytes, position: int, end: int, shape: Shape, left: int) -> int:
    """Subtract the parts between two positions from ``left``; negative once there are too many.

    Numbers below 128 are read in place: a call for each would double the time.
    """
    while position < end and left >= 0:
        tag = data[position]
        position += 1
        if tag >= _CONTINUES:
            tag, position = _varint(data, position - 1)
        left -= 1
        wire_type = tag & 7
        if wire_type == _LENGTH:
            length = data[position]
            position += 1
            if length >= _CONTINUES:
                length, position = _varint(data, position - 1)
            inner = shape.get(tag >> 3)
            if inner is not None:
                left = _count(data, position, min(position + length, end), inner, left)
            elif tag >> 3 in shape:
                left -= _numbers(data[position : position + length]) // NUMBERS_PER_PART
            position += length
        elif wire_type == _VARINT:
            _, position = _varint(data, position)
        elif wire_type == _FIXED64:
            position += 8
        elif wire_type == _FIXED32:
            position += 4
        elif wire_type not in _GROUP:
            return left  # the parser stops here as well
    return left


def _numbers(packed: bytes) -> int:
    return len(packed.translate(None, _NOT_LAST))


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
