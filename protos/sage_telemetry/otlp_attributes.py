"""Attributes as OTLP has them on the wire.  Most are the same with every request, so those are encoded once and kept.

Protobuf reads fields that stand one behind the other as if they had been set one after the other, so what was kept is
put in a row and read in at once: a quarter of the time that setting them takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.util.types import AttributeValue

Attributes = Mapping[str, AttributeValue | None]
"""None: the attribute is left out."""

KEPT: Final = 4_096
"""Attributes that an encoder keeps, those not seen for longest dropped first."""
KEPT_CHARACTERS: Final = 64
"""A longer text is not kept: it hardly comes again, and may be what was asked and answered."""

_DOUBLE = Struct("<d")


class AttributeEncoder:
    """Of the attributes of one type of message.  Any thread may call it."""

    def __init__(self, owner: type[Span | Span.Event | Span.Link | Resource]) -> None:
        self._owner = owner
        self._kept = lru_cache(maxsize=KEPT, typed=True)(self._field)  # typed, or True would be 1
        self._before_a_double = lru_cache(maxsize=KEPT)(self._up_to_a_double)

    def __call__(self, attributes: Attributes) -> bytes:
        """To be merged into a message of that type.  Raises TypeError for a value that OTLP has not."""
        fields: list[bytes] = []
        for name, value in attributes.items():
            if value is None:
                continue
            if isinstance(value, float):  # measured: it does not come again, but all are of one length
                fields.append(self._before_a_double(name) + _DOUBLE.pack(value))
            elif isinstance(value, int) or (isinstance(value, str) and len(value) <= KEPT_CHARACTERS):
                fields.append(self._kept(name, value))
            else:
                fields.append(self._field(name, value))
        return b"".join(fields)

    @property
    def kept(self) -> int:
        """Attributes with their values that are kept now."""
        return self._kept.cache_info().currsize

    def _field(self, name: str, value: AttributeValue) -> bytes:
        owner = self._owner()
        _write(owner.attributes.add(key=name).value, value)
        return owner.SerializeToString()

    def _up_to_a_double(self, name: str) -> bytes:
        return self._field(name, 0.0)[: -_DOUBLE.size]


def _write(into: AnyValue, value: AttributeValue) -> None:
    if isinstance(value, str):
        into.string_value = value
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int):
        into.int_value = value
    elif isinstance(value, float):
        into.double_value = value
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        into.array_value.SetInParent()  # also where it is empty
        for each in value:
            _write(into.array_value.values.add(), each)
    else:
        raise TypeError(f"no attribute of ours is a {type(value).__name__}")
