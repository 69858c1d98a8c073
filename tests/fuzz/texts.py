"""The texts of a message, in the order of its fields."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message


def texts_of(message: Message) -> Iterator[str]:
    """Yield every string that a message holds, at any depth; keys of maps too."""
    for field, value in message.ListFields():
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map:
            for key, inner in value.items():
                yield str(key)
                if isinstance(inner, Message):
                    yield from texts_of(inner)
                else:
                    yield str(inner)
            continue
        for each in value if field.is_repeated else [value]:
            if isinstance(each, Message):
                yield from texts_of(each)
            elif isinstance(each, str | bytes):
                yield each if isinstance(each, str) else each.decode(errors="replace")
