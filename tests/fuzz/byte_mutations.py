"""Changes to the bytes of a message, which may or may not be one afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

LONGEST_VARINT = b"\xff" * 9 + b"\x01"
DEEP = 10_000  # groups within each other; parsers allow about 100
UNKNOWN_FIELD = 15_000


def mutated(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    """Return ``data`` after one to four changes; ``others`` are messages to take pieces of."""
    for _ in range(dice.choice((1, 1, 2, 4))):
        data = dice.choice(_MUTATIONS)(data, others, dice)
    return data


def _flip(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 2, 8))):
        if changed:
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _cut(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    return data[: _position(data, dice)]


def _drop(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    at = _position(data, dice)
    return data[:at] + data[at + dice.choice((1, 2, 9)) :]


def _insert(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    at = _position(data, dice)
    piece = dice.choice((dice.randbytes(dice.choice((1, 3, 40))), LONGEST_VARINT, b"\xc0\x80", b"\xed\xa0\x80"))
    return data[:at] + piece + data[at:]


def _repeat(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    at = _position(data, dice)
    return data[:at] + data[at : at + 200] * dice.choice((2, 3, 50)) + data[at + 200 :]


def _splice(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    other = dice.choice(others) if others else b""
    return data[: _position(data, dice)] + other[_position(other, dice) :]


def _unknown_field(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    value = data[:120]
    return data + _varint(UNKNOWN_FIELD << 3 | 2) + _varint(len(value)) + value


def _nested_groups(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    depth = dice.choice((3, 90, DEEP))
    return data + _varint(UNKNOWN_FIELD << 3 | 3) * depth + _varint(UNKNOWN_FIELD << 3 | 4) * depth


def _random(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    return dice.randbytes(dice.choice((0, 1, 7, 300)))


_MUTATIONS: tuple[Callable[[bytes, Sequence[bytes], Random], bytes], ...] = (
    *(_flip, _flip, _cut, _drop, _insert, _insert, _repeat, _splice, _unknown_field, _nested_groups, _random),
)


def _position(data: bytes, dice: Random) -> int:
    return dice.randrange(len(data) + 1)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
