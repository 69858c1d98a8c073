"""Which fields of a message or a dataclass nobody has filled."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

from google.protobuf.message import Message


def unset(message: Message) -> set[str]:
    """Names of the fields that are absent, empty or zero; of a oneof it is enough that one is there.

    Deprecated fields are meant to be empty.
    """
    there = {field.name for field, _ in message.ListFields()}
    missing = set()
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof is not None and message.WhichOneof(oneof.name) is not None:
            continue
        if field.name not in there and not field.GetOptions().deprecated:
            missing.add(field.name)
    return missing


def at_default(value: Any) -> set[str]:
    """Names of a dataclass's fields that hold their default, or nothing at all."""
    return {f.name for f in fields(value) if _says_nothing(getattr(value, f.name), _default(f))}


def _says_nothing(value: object, default: object) -> bool:
    return value == default or value is None or (not value and not isinstance(value, bool))


def _default(field: Field[Any]) -> object:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None
