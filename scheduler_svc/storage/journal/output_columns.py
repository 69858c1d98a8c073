"""A piece of output as the columns of its row, in both directions."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from scheduler_svc.control.journal.detached import OutputPiece

_LENGTH_BYTES = 4


def columns(piece: OutputPiece) -> dict[str, Any]:
    """Return the columns of a piece."""
    return {
        "first_index": piece.first_index,
        "token_ids": _packed(piece.token_ids),
        "text_lengths": _packed(piece.text_lengths),
        "text": to_bytes(piece.text),
        "logprobs": None if piece.logprobs is None else b"".join(_framed(piece.logprobs)),
    }


def piece(row: Any) -> OutputPiece:
    """Return the piece of a row."""
    return OutputPiece(
        first_index=row.first_index,
        token_ids=_unpacked(row.token_ids),
        text_lengths=_unpacked(row.text_lengths),
        text=to_text(row.text),
        logprobs=None if row.logprobs is None else list(_unframed(row.logprobs)),
    )


def to_bytes(text: str) -> bytes:
    """Return a text as UTF-8, also one with half a surrogate pair."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """Return the text of its UTF-8."""
    return data.decode("utf-8", "surrogatepass")


def _packed(numbers: Sequence[int]) -> bytes:
    found = array("I", numbers)
    if sys.byteorder == "big":
        found.byteswap()
    return found.tobytes()


def _unpacked(data: bytes) -> array[int]:
    found = array("I", data)
    if sys.byteorder == "big":
        found.byteswap()
    return found


def _framed(messages: Sequence[bytes]) -> Iterator[bytes]:
    for each in messages:
        yield len(each).to_bytes(_LENGTH_BYTES, "little")
        yield each


def _unframed(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        yield data[start:at]
