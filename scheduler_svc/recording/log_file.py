"""A file of lines, bounded in size: at its bound it is put aside and a new one begins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

BLOCK_BYTES = 65_536  # that are read at once to find the end of the last line


class LogFile:
    """Appends whole lines to a file.  FILE becomes FILE.1, FILE.1 becomes FILE.2, and the last of them is deleted."""

    def __init__(self, path: Path, *, max_bytes: int, files: int) -> None:
        """``files``: how many there are at most, the one that is written to included; ``max_bytes`` of each."""
        self.path = path
        self._max_bytes = max_bytes
        self._files = files
        self._descriptor: int | None = None
        self.size = 0  # bytes of the lines that are in the file

    @property
    def is_open(self) -> bool:
        """Whether there is a file to append to."""
        return self._descriptor is not None

    def has_space(self, added: int) -> bool:
        """Whether ``added`` bytes fit; the first line of a file always does."""
        return self.size == 0 or self.size + added <= self._max_bytes

    def begin(self) -> None:
        """Put the file aside, if there is one, and begin a new one.  Raises OSError."""
        self.close()
        self._put_aside()
        # Only its owner may read who asked how much and when.
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self.size = 0

    def go_on(self) -> None:
        """Open the file as it is, without half a line at its end, and append to it.  Raises OSError."""
        self.close()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = _whole_lines(self._descriptor)
        self._cut()

    def last_lines(self, most_bytes: int) -> list[bytes]:
        """Return the last whole lines, the oldest first: of the file put aside last too, if the current one has fewer.

        Raises OSError.
        """
        found: list[bytes] = []
        for file in (self.path, self._numbered(1)):
            if most_bytes > 0 and file.exists():
                data = _tail(file, most_bytes)
                most_bytes -= len(data)
                found[:0] = data.splitlines()
        return found

    def append(self, lines: Sequence[bytes]) -> None:
        """Append lines, all of them or none.  Raises OSError."""
        assert self._descriptor is not None, "begin() comes first"
        data = b"".join(lines)
        view, written = memoryview(data), 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, view[written:])
        except OSError:
            self._cut()
            raise
        self.size += len(data)

    def _cut(self) -> None:
        """Remove half a line, which would spoil the line after it; close the file where that is not possible."""
        assert self._descriptor is not None, "it is open"
        try:
            os.ftruncate(self._descriptor, self.size)
            os.lseek(self._descriptor, self.size, os.SEEK_SET)
        except OSError:
            self.close()

    def close(self) -> None:
        """Close the file; ``begin`` opens a new one."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _put_aside(self) -> None:
        if not self.path.exists():
            return
        if self.path.stat().st_size == 0 or self._files == 1:
            return
        for number in range(self._files - 1, 0, -1):
            older, newer = self._numbered(number), self._numbered(number - 1)
            if newer.exists():
                newer.replace(older)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path


def _tail(file: Path, most_bytes: int) -> bytes:
    """Return the end of a file, without the part of a line that it begins with.  Raises OSError."""
    with file.open("rb") as opened:
        start = max(0, opened.seek(0, os.SEEK_END) - most_bytes)
        opened.seek(start)
        data = opened.read(most_bytes)
    return data if start == 0 else data.partition(b"\n")[2]


def _whole_lines(descriptor: int) -> int:
    """Return the bytes of a file up to the end of its last whole line."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
