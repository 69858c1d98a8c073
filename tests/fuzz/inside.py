"""What is inside a message, at any depth: texts, in the order of its fields, and statuses."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message
from google.rpc import status_pb2


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


def statuses_of(message: Message) -> Iterator[status_pb2.Status]:
    """Yield every status that a message holds."""
    if isinstance(message, status_pb2.Status):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value if field.is_repeated else [value]:
                yield from statuses_of(each)
