"""A file of usage records, one JSON object a line."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence

from scheduler_svc.control.journal.usage import UsageRecord
from scheduler_svc.recording.log_file import LogFile
from scheduler_svc.recording.recording import CannotRecord

log = logging.getLogger(__name__)


class UsageFile:
    """Appends records in a thread.  What cannot be written is dropped and counted."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self.dropped = 0  # records, since the start
        self._failed = False  # the last append

    def start(self) -> None:
        """Begin the file.  Raises CannotRecord."""
        try:
            self._file.begin()
        except OSError as error:
            raise CannotRecord(f"usage.file: cannot write {str(self._file.path)!r}: {error.strerror}") from error

    async def append(self, records: Sequence[UsageRecord]) -> None:
        """Append records; does not fail."""
        lines = [json.dumps(each._asdict(), separators=(",", ":")).encode() + b"\n" for each in records]
        try:
            await asyncio.to_thread(self._append, lines)
        except OSError as error:
            self.dropped += len(records)
            if not self._failed:
                log.error("usage.file cannot be written: %s; records are dropped from it until it can", error)
            self._failed = True
        else:
            self._failed = False

    def _append(self, lines: list[bytes]) -> None:
        if not self._file.is_open or not self._file.has_space(sum(map(len, lines))):
            self._file.begin()
        self._file.append(lines)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
