"""The error of a trace file that cannot be read."""

from __future__ import annotations

from pathlib import Path


class TraceError(ValueError):
    """A trace file is empty, or a line of it is broken.  Names the file, the line (from 1) and the field."""

    def __init__(self, path: Path, problem: str, *, line: int | None = None, field: str | None = None) -> None:
        self.path = path
        self.problem = problem
        self.line = line
        self.field = field
        place = f"{path}" if line is None else f"{path}, line {line}"
        super().__init__(f"{place}: {problem}" if field is None else f"{place}: {field}: {problem}")
