"""Reads the lines of a batch from its input file, a piece at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass


class LineTooLong(Exception):
    """A line has more bytes than one may have."""

    def __init__(self, number: int) -> None:
        self.number = number  # from 1


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line as it is in the file, without its line break."""

    index: int  # among the lines that are not empty, from 0
    number: int  # among all lines, from 1
    content: bytes


async def lines_of(read: Callable[[int], Awaitable[bytes]], limit_bytes: int | None) -> AsyncIterator[RawLine]:
    """Yield the lines of a file that are not empty.

    ``read`` returns the next bytes from a position on, and none at the file's end.  At most a line and a piece are in
    memory.  ``limit_bytes``: of a line; None: lines have as many as they have.  Raises LineTooLong, and what ``read``
    raises.
    """
    limit = float("inf") if limit_bytes is None else limit_bytes
    index, number, position, rest = 0, 0, 0, b""
    while piece := await read(position):
        position += len(piece)
        *whole, rest = (rest + piece).split(b"\n")
        for content in whole:
            number += 1
            if len(content) > limit:
                raise LineTooLong(number)
            if content.strip():
                yield RawLine(index, number, content)
                index += 1
        if len(rest) > limit:
            raise LineTooLong(number + 1)
    if rest.strip():
        yield RawLine(index, number + 1, rest)
