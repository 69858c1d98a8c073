"""Random messages of any type, made from its descriptor: plausible ones with a few changes, and wild ones."""

from __future__ import annotations

from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.fuzz.extreme_values import extreme, huge
from tests.fuzz.known_values import KnownValues
from tests.fuzz.plausible_messages import PLAUSIBLE

DEEPEST = 7  # levels of messages in messages; types that hold themselves would never end
MOST_NUMBERS = 2_100_000  # in one list: a little more than a prompt may have
PLAUSIBLE_SHARE = 0.8
KNOWN_SHARE = 0.6
CHANGES = (0, 0, 1, 1, 1, 2, 5)


class MessageMaker:
    """Makes messages with one run of dice: the same dice and the same known values make the same messages."""

    def __init__(self, dice: Random, known: KnownValues) -> None:
        self._dice = dice
        self._known = known

    def message(self, descriptor: Any, depth: int = 0) -> Message:
        """Return a message of a type."""
        message = GetMessageClass(descriptor)()
        fill = PLAUSIBLE.get(descriptor.full_name)
        if fill is not None and self._dice.random() < PLAUSIBLE_SHARE:
            fill(message, self._dice)
            for _ in range(self._dice.choice(CHANGES)):
                self._change(message, depth)
        else:
            self._fill(message, depth)
        return message

    def _fill(self, message: Message, depth: int) -> None:
        """Set about half of the fields, and of each oneof one field or none."""
        descriptor: Any = message.DESCRIPTOR
        for field in descriptor.fields:
            if field.containing_oneof is None and self._dice.random() < (0.5 if depth < 3 else 0.2):
                self._set(message, field, depth)
        for oneof in descriptor.oneofs:
            if self._dice.random() < 0.92:
                self._set(message, self._dice.choice(oneof.fields), depth)

    def _change(self, message: Message, depth: int) -> None:
        """Set or clear one field, of the message or of one that it holds."""
        fields: list[Any] = list(message.DESCRIPTOR.fields)
        if not fields:
            return
        field = self._dice.choice(fields)
        single = field.message_type is not None and not field.is_repeated
        if single and message.HasField(field.name) and self._dice.random() < 0.7:
            self._change(getattr(message, field.name), depth + 1)
        elif self._dice.random() < 0.1:
            message.ClearField(field.name)
        else:
            self._set(message, field, depth)

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None and depth >= DEEPEST:
            return
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._set_map(getattr(message, field.name), field.message_type, depth)
        elif field.is_repeated:
            self._extend(getattr(message, field.name), field, depth)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(self.message(field.message_type, depth + 1))
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, self._scalar(field))

    def _set_map(self, values: Any, entry: Descriptor, depth: int) -> None:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for _ in range(self._count(depth)):
            name = self._scalar(key)
            if value.message_type is not None:
                values[name].CopyFrom(self.message(value.message_type, depth + 1))
            else:
                values[name] = self._scalar(value)

    def _extend(self, values: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None:
            values.extend(self.message(field.message_type, depth + 1) for _ in range(self._count(depth)))
        elif self._dice.random() < 0.03:
            values.extend(self._many(field))
        else:
            values.extend(self._scalar(field) for _ in range(self._count(depth)))

    def _many(self, field: FieldDescriptor) -> list[Any]:
        if field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
            return [self._dice.choice((0, 1))] * min(huge(self._dice), MOST_NUMBERS)
        return (["x"] if field.type == FieldDescriptor.TYPE_STRING else [b"x"]) * self._dice.choice((65, 3_000))

    def _count(self, depth: int) -> int:
        return self._dice.choice((0, 1, 1, 2, 3, 17) if depth < 3 else (0, 1, 2))

    def _scalar(self, field: FieldDescriptor) -> Any:
        if self._dice.random() < KNOWN_SHARE:
            value = self._known.choose(field, self._dice)
            if value is not None and _fits(value, field):
                return value
        return extreme(field, self._dice)


def _fits(value: Any, field: FieldDescriptor) -> bool:
    """Return whether a known value has the field's type; names are the same in fields of different types."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return isinstance(value, str)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return isinstance(value, bytes)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_UINT64, FieldDescriptor.CPPTYPE_UINT32):
        bits = 64 if field.cpp_type == FieldDescriptor.CPPTYPE_UINT64 else 32
        return isinstance(value, int) and 0 <= value < 2**bits
    return False
