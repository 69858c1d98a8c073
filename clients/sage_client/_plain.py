"""Values of the SDK as plain dictionaries and JSON."""

from __future__ import annotations

import dataclasses
import json
from array import array
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from sage_client._enums import Priority


def plain(value: Any) -> Any:
    """Return ``value`` as dict, list, str, number, bool or None.

    Fields become keys, enum members lower-case words, points in time ISO 8601; durations stay seconds.
    """
    if isinstance(value, Priority):
        return value.name.lower()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if callable(dump := getattr(value, "model_dump", None)):  # a pydantic model, such as ``Completion.parsed``
        return dump(mode="json")
    if isinstance(value, (tuple, list, array)):
        return [plain(each) for each in value]
    return value


class Plain:
    """Base of the values that people keep, log or send on."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the value as a dictionary of plain values; enum members become lower-case words."""
        found: dict[str, Any] = plain(self)
        return found

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the value as a JSON document, in one line unless ``indent`` is given."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)
