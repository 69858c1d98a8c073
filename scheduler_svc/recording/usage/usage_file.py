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
    """Appends records in a thread.  What cannot be written is dropped."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._failed = False  # the last append

    def start(self) -> None:
        """Go on with the file of an earlier scheduler, or begin one.  Raises CannotRecord."""
        try:
            self._file.go_on()
        except OSError as error:
            raise CannotRecord(f"usage.file: cannot write {str(self._file.path)!r}: {error.strerror}") from error

    async def append(self, records: Sequence[UsageRecord]) -> int:
        """Append records; return how many were dropped, which are all or none."""
        lines = [json.dumps(each._asdict(), separators=(",", ":")).encode() + b"\n" for each in records]
        try:
            await asyncio.to_thread(self._append, lines)
        except OSError as error:
            if not self._failed:
                log.error("usage.file cannot be written: %s; records are dropped from it until it can", error)
            self._failed = True
            return len(records)
        self._failed = False
        return 0

    def _append(self, lines: list[bytes]) -> None:
        if not self._file.is_open or not self._file.has_space(sum(map(len, lines))):
            self._file.begin()
        self._file.append(lines)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
