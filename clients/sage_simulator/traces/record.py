"""A line of a trace file as named fields, each checked when it is asked for."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from sage_simulator.traces.source_lines import SourceLine
from sage_simulator.traces.trace_error import TraceError

MOST_TOKENS = 1 << 31  # above it a length is surely a mistake of the file


class Record(ABC):
    """Named fields of one line.  Every method raises TraceError with file, line and field."""

    __slots__ = ("fields", "line")

    def __init__(self, line: SourceLine, fields: Mapping[str, Any]) -> None:
        self.line = line
        self.fields = fields

    def error(self, field: str, problem: str) -> TraceError:
        """Return the error that names a field of this line."""
        return self.line.error(problem, field=field)

    def has(self, field: str) -> bool:
        """Whether the field is there and has a value."""
        return self.fields.get(field) is not None

    def tokens(self, field: str) -> int:
        """Return a count of tokens, at least 1."""
        count = self._integer(field, self._value(field))
        if not 1 <= count <= MOST_TOKENS:
            raise self.error(field, f"expected 1 to {MOST_TOKENS} tokens, got {count}")
        return count

    def number(self, field: str) -> float:
        """Return a finite number, at least 0."""
        number = self._number(field, self._value(field))
        if not (math.isfinite(number) and number >= 0):
            raise self.error(field, f"expected a finite number that is not negative, got {number}")
        return number

    def text(self, field: str) -> str:
        """Return a string."""
        value = self._value(field)
        if not isinstance(value, str):
            raise self.error(field, f"expected a string, got {value!r:.80}")
        return value

    def _value(self, field: str) -> Any:
        if not self.has(field):
            raise self.error(field, "the field is missing")
        return self.fields[field]

    @abstractmethod
    def _integer(self, field: str, value: Any) -> int: ...

    @abstractmethod
    def _number(self, field: str, value: Any) -> float: ...
