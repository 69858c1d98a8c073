"""Values at and beyond the edges of each type of field."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

_INT32 = (0, 1, -1, 2, 7, 100, 2**31 - 1, -(2**31))
_UINT32 = (0, 1, 2, 7, 100, 2**31, 2**32 - 1)
_INT64 = (*_INT32, 2**32, 2**53 + 1, 315_576_000_001, 2**63 - 1, -(2**63))
_UINT64 = (*_UINT32, 2**53 + 1, 2**63, 2**64 - 1)
_FLOATS = (0.0, -0.0, 0.5, 1.0, -1.0, 2.0, 1e-320, 1e38, 1e308, -1e308, math.inf, -math.inf, math.nan)
_ENUMS = (0, 1, 2, 3, 4, 5, 6, 99, -1, 2**31 - 1, -(2**31))
_TEXTS = (
    *("", " ", "x", "0", "-1", "default", "\0", "\n", "a\r\nb: c", "../../etc/passwd", "%s%n{0}{}", "'; --", "*"),
    *("{}", "[]", "null", '{"a": 1}', '{"$ref": "#"}', '{"type": "object", "properties": {"a": {"type": "integer"}}}'),
    *(
        "(a|b)*c",
        "(((((",
        "[^\\s\\S]",
        'root ::= "x"',
        'root ::= root "a"',
        "NaN",
        "\ufeff",
        "\u202e\u200b",
        "\U0001f9e8",
    ),
    *("e\u0301" * 9, "a" * 257, "\U0001f600" * 300),
)
_BYTES = (b"", b"\0", b"\xff" * 9, b"{}", b"[]", b'{"a": NaN}', b'{"remote_port": "x", "remote_block_ids": [[-1]]}')

_MIB = 1024 * 1024

_BY_TYPE: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.CPPTYPE_INT32: _INT32,
    FieldDescriptor.CPPTYPE_UINT32: _UINT32,
    FieldDescriptor.CPPTYPE_INT64: _INT64,
    FieldDescriptor.CPPTYPE_UINT64: _UINT64,
    FieldDescriptor.CPPTYPE_FLOAT: _FLOATS,
    FieldDescriptor.CPPTYPE_DOUBLE: _FLOATS,
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_ENUM: _ENUMS,
}


def extreme(field: FieldDescriptor, dice: Random) -> Any:
    """Return a value that the field's type allows; enums also get numbers that stand for nothing."""
    if field.cpp_type != FieldDescriptor.CPPTYPE_STRING:  # the type of strings and of bytes
        return dice.choice(_BY_TYPE[field.cpp_type])
    text = field.type == FieldDescriptor.TYPE_STRING
    if dice.random() < 0.05:
        size = huge(dice)
        return dice.choice("xé\0") * size if text else bytes([dice.randrange(256)]) * size
    return dice.choice(_TEXTS) if text else dice.choice((*_BYTES, dice.randbytes(20)))


def huge(dice: Random) -> int:
    """Return a size of a text or a list: mostly tens of thousands, seldom millions."""
    return dice.choice((3 * _MIB, 9 * _MIB)) if dice.random() < 0.01 else dice.choice((1_025, 5_000, 66_000, 150_000))
