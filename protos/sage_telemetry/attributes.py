"""Attribute values as OTLP writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value | None]
"""None: the attribute is left out."""


def write_attributes(into: Any, attributes: Attributes) -> None:
    """Append to a repeated KeyValue field.

    In place and in one piece: messages that are built apart and copied in cost twice, and a call per value a fifth.
    """
    add = into.add
    for key, value in attributes.items():
        if value is None:
            continue
        written = add(key=key).value
        if isinstance(value, str):
            written.string_value = value
        elif isinstance(value, bool):
            written.bool_value = value
        elif isinstance(value, int):
            written.int_value = value
        elif isinstance(value, float):
            written.double_value = value
        else:
            values = written.array_value.values
            for each in value:
                values.add(string_value=each)
