"""The numbered lines of a trace file, decoded one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sage_simulator.traces.trace_error import TraceError

LONGEST_LINE_BYTES = 64 << 20  # a file without line ends must not be read whole into memory


_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh", b"PK\x03\x04")  # gzip, zstd, xz, bzip2, zip


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceLine:
    """One line of a trace file."""

    path: Path
    number: int  # from 1
    text: str  # without the line end

    def error(self, problem: str, *, field: str | None = None) -> TraceError:
        """Return the error that names this line."""
        return TraceError(self.path, problem, line=self.number, field=field)


def source_lines(path: Path) -> Iterator[SourceLine]:
    """Yield the lines that are not blank.  Raises OSError, and TraceError where a line is too long or not UTF-8."""
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(LONGEST_LINE_BYTES + 1):
            number += 1
            if len(raw) > LONGEST_LINE_BYTES:
                raise TraceError(path, f"the line is longer than {LONGEST_LINE_BYTES} bytes", line=number)
            if number == 1 and raw.startswith(_COMPRESSED):
                raise TraceError(path, "the file is compressed; unpack it first")
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise TraceError(path, "the line is not UTF-8", line=number) from error
            if text.strip():
                yield SourceLine(path=path, number=number, text=text)
