"""What a file is uploaded from: a path, bytes, or anything that yields bytes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sage_client._errors import FieldViolation, InvalidRequestError, UnavailableError
from sage_wire.batches import FILE_PIECE_BYTES

Content = Path | str | bytes | Iterable[bytes] | AsyncIterable[bytes]
"""What to upload: the path of a file (also as a text), its bytes, or something that yields them."""

FIELD = "content"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSource:
    """Gives the pieces of a file, each at most FILE_PIECE_BYTES long."""

    pieces: Callable[[], AsyncGenerator[bytes, None]]  # from the start
    repeatable: bool  # whether they can be had again
    name: str  # of the file; empty: it has none


def file_source(content: Content) -> FileSource:
    """Return the source of what a caller gave.  Raises InvalidRequestError if it is none, or cannot be read."""
    if isinstance(content, (str, Path)):
        return _of_path(Path(content))
    if isinstance(content, (bytes, bytearray, memoryview)):
        held = bytes(content)
        return FileSource(pieces=lambda: _cut(_one(held)), repeatable=True, name="")
    if isinstance(content, AsyncIterable):
        return _of_pieces(lambda: content, repeatable=not isinstance(content, AsyncIterator))
    if isinstance(content, Iterable):
        return _of_pieces(lambda: _each(content), repeatable=iter(content) is not content)
    raise _refused(f"{type(content).__name__} is no path, no bytes and yields none")


def _of_path(path: Path) -> FileSource:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise _refused(f"cannot read {path}: {error.strerror or error}") from error
    return FileSource(pieces=lambda: _read(path), repeatable=True, name=path.name)


def _of_pieces(begin: Callable[[], AsyncIterable[bytes]], *, repeatable: bool) -> FileSource:
    begun = False

    def pieces() -> AsyncGenerator[bytes, None]:
        nonlocal begun
        if begun and not repeatable:
            raise UnavailableError("the upload broke, and its content can be read only once")
        begun = True
        return _cut(begin())

    return FileSource(pieces=pieces, repeatable=repeatable, name="")


async def _read(path: Path) -> AsyncGenerator[bytes, None]:
    handle = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while piece := await asyncio.to_thread(os.read, handle, FILE_PIECE_BYTES):
            yield piece
    finally:
        os.close(handle)


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _each(content: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


async def _cut(content: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield pieces of full length, the last one of what is left.  Raises InvalidRequestError for what is no bytes."""
    held = bytearray()
    async for piece in content:
        if not isinstance(piece, (bytes, bytearray, memoryview)):
            raise _refused(f"yields {type(piece).__name__}, not bytes")
        held += piece
        while len(held) >= FILE_PIECE_BYTES:
            yield bytes(held[:FILE_PIECE_BYTES])
            del held[:FILE_PIECE_BYTES]
    if held:
        yield bytes(held)


def _refused(what: str) -> InvalidRequestError:
    return InvalidRequestError.of([FieldViolation(field=FIELD, description=what)])
