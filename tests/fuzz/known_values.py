"""Values that make sense in a field of some name: given at the start, and learned from what the services answer.

Without them nearly every message would be refused for an unknown id, and nothing behind that would be reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

KEPT = 64  # values of each field
LEARNED = frozenset(
    {
        "request_id",
        "session_id",
        "instance_id",
        "epoch",
        "number",
        "attempt_number",
        "handle",
        "tokenizer_hash",
        "resume_secret",
    }
    | {"engine_start_id", "compatibility_key", "kv_transfer_params", "preferred_instance", "next_page_token"}
)
LARGEST_LEARNED = 4_096  # bytes or characters
SAME = {
    "attempt_number": "number",
    "preferred_instance": "instance_id",
    "page_token": "next_page_token",
} | dict.fromkeys(("pause", "resume", "leave"), "handle")
"""Fields whose values are those of another one."""


class KnownValues:
    """Values by the name of the field, the latest KEPT of each."""

    def __init__(self, **given: Iterable[Any]) -> None:
        self._values = {name: deque(values, KEPT) for name, values in given.items()}

    def add(self, name: str, value: Any) -> None:
        self._values.setdefault(_same(name), deque(maxlen=KEPT)).append(value)

    def choose(self, field: FieldDescriptor, dice: Random) -> Any:
        """Return a value for a field; None if none is known."""
        values = self._values.get(_same(field.name))
        return dice.choice(values) if values else None

    def learn(self, message: Message) -> None:
        """Keep the ids that a reply holds, whatever its type."""
        for field, value in message.ListFields():
            if field.message_type is not None:
                if not field.message_type.GetOptions().map_entry:
                    for inner in list(value)[:8] if field.is_repeated else [value]:
                        self.learn(inner)
            elif field.name in LEARNED and not field.is_repeated and not _large(value):
                self.add(field.name, value)


def _same(name: str) -> str:
    return SAME.get(name, name)


def _large(value: Any) -> bool:
    return isinstance(value, str | bytes) and len(value) > LARGEST_LEARNED
