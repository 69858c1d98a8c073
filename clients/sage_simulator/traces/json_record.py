"""Lines of a JSONL trace."""

from __future__ import annotations

import json
from typing import Any

from sage_simulator.traces.record import Record
from sage_simulator.traces.source_lines import SourceLine


class JsonRecord(Record):
    """A line that holds one JSON object."""

    __slots__ = ()

    @classmethod
    def of(cls, line: SourceLine) -> JsonRecord:
        """Parse a line.  Raises TraceError where it is no JSON object."""
        try:
            fields = json.loads(line.text)
        except json.JSONDecodeError as error:  # its own words name a line within this one
            raise line.error(f"not JSON: {error.msg} (column {error.colno})") from error
        except (ValueError, RecursionError) as error:
            raise line.error(f"not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise line.error(f"expected a JSON object, got {type(fields).__name__}")
        return cls(line, fields)

    def integers(self, field: str) -> tuple[int, ...]:
        """Return a list of integers; empty where the field is missing."""
        if not self.has(field):
            return ()
        value = self.fields[field]
        if not isinstance(value, list) or any(type(entry) is not int for entry in value):
            raise self.error(field, "expected a list of integers")
        return tuple(value)

    def _integer(self, field: str, value: Any) -> int:
        if type(value) is not int:  # bool is a subclass
            raise self.error(field, f"expected an integer, got {value!r:.80}")
        return value

    def _number(self, field: str, value: Any) -> float:
        if type(value) not in (int, float):
            raise self.error(field, f"expected a number, got {value!r:.80}")
        try:
            return float(value)
        except OverflowError as error:
            raise self.error(field, "the number is too large") from error
