"""Lines of a CSV trace with a header."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sage_simulator.traces.record import Record
from sage_simulator.traces.source_lines import SourceLine, source_lines


class CsvRecord(Record):
    """A line under a header.  Every value is text; an empty one counts as missing."""

    __slots__ = ()

    def has(self, field: str) -> bool:
        """Whether the field is there and not empty."""
        return bool(self.fields.get(field))

    def _integer(self, field: str, value: Any) -> int:
        try:
            return int(value)
        except ValueError as error:
            raise self.error(field, f"expected an integer, got {value!r:.80}") from error

    def _number(self, field: str, value: Any) -> float:
        try:
            return float(value)
        except ValueError as error:
            raise self.error(field, f"expected a number, got {value!r:.80}") from error


def csv_cells(line: SourceLine) -> list[str]:
    """Split a line at its commas, and strip the cells.  Raises TraceError."""
    try:
        [cells] = csv.reader([line.text], strict=True)
    except (csv.Error, ValueError) as error:
        raise line.error(f"not CSV: {error}") from error
    return [cell.strip() for cell in cells]


def csv_records(path: Path, needed: Sequence[str]) -> Iterator[CsvRecord]:
    """Yield the lines under the header, which must name the needed columns; other columns are carried along."""
    lines = source_lines(path)
    header: list[str] = []
    for line in lines:
        if not header:
            header = csv_cells(line)
            for column in needed:
                if column not in header:
                    raise line.error("the header lacks this column", field=column)
            continue
        cells = csv_cells(line)
        if len(cells) != len(header):
            raise line.error(f"expected {len(header)} cells, got {len(cells)}")
        yield CsvRecord(line, dict(zip(header, cells, strict=True)))
