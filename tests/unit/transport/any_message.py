"""Hypothesis strategies for any message of the contract, whatever its fields hold."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

M = TypeVar("M", bound=Message)

DEPTH = 6

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(0, 9),  # some of them unknown
}


def messages(kind: type[M], depth: int = DEPTH) -> st.SearchStrategy[M]:
    """Each field is there or not; at most one of each oneof."""
    return st.fixed_dictionaries({}, optional=_fields(kind.DESCRIPTOR, depth)).map(lambda fields: _build(kind, fields))


def _build(kind: type[M], fields: dict[str, Any]) -> M:
    message = kind()
    for name, value in fields.items():
        target = getattr(message, name)
        if isinstance(value, dict):
            _fill_map(target, value)
        elif isinstance(value, list):
            target.extend(value)
        elif isinstance(value, Message):
            target.CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


def _fill_map(target: Any, value: dict[Any, Any]) -> None:
    for key, entry in value.items():
        if isinstance(entry, Message):
            target[key].CopyFrom(entry)
        else:
            target[key] = entry


def _fields(descriptor: Any, depth: int) -> dict[str, st.SearchStrategy[Any]]:
    return {field.name: _field(field, depth) for field in descriptor.fields if depth or field.message_type is None}


def _field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        return st.dictionaries(_one(key, depth), _one(value, depth), max_size=3)
    return st.lists(_one(field, depth), max_size=3) if field.is_repeated else _one(field, depth)


def _one(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(GetMessageClass(field.message_type), depth - 1)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.binary(max_size=20) if field.type == FieldDescriptor.TYPE_BYTES else _TEXT
    return _SCALARS[field.cpp_type]
