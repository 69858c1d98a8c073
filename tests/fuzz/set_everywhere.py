"""Sets a field of some name in a message and in all that it holds."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message


def set_everywhere(message: Message, name: str, value: Any) -> None:
    """Set the field ``name`` of a message, and of those in its fields, wherever there is one of the value's type."""
    for field in message.DESCRIPTOR.fields:
        if field.name == name and not field.is_repeated and isinstance(value, type(field.default_value)):
            setattr(message, name, value)
        elif field.message_type is not None and not field.is_repeated and message.HasField(field.name):
            set_everywhere(getattr(message, field.name), name, value)
