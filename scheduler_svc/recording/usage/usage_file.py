"""A file of usage records, one JSON object a line."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Sequence

from scheduler_svc.control.journal.usage import UsageRecord
from scheduler_svc.recording.log_file import LogFile
from scheduler_svc.recording.recording import CannotRecord
from scheduler_svc.recording.usage.earlier_records import EarlierRecords

log = logging.getLogger(__name__)


CLOSE_S = 1.0
"""How long ``close`` waits for what is being appended."""

TAIL_BYTES = 8 * 2**20
"""The end of an earlier scheduler's file that is read: about 25,000 records, those of a minute at 400 a second."""


class UsageFile:
    """Appends records in a thread.  What cannot be written is dropped."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._failed = False  # the last append
        self._earlier = EarlierRecords(())
        self._appending = threading.Lock()  # a caller that is cancelled leaves its thread behind

    def start(self) -> None:
        """Go on with the file of an earlier scheduler, or begin one.  Raises CannotRecord."""
        try:
            self._file.go_on()
            self._earlier = EarlierRecords(self._file.last_lines(TAIL_BYTES))
        except OSError as error:
            raise CannotRecord(f"usage.file: cannot write {str(self._file.path)!r}: {error.strerror}") from error

    async def append(self, records: Sequence[UsageRecord]) -> int:
        """Append records, of adopted requests those that an earlier scheduler did not append.

        Return how many were dropped, which are all or none.
        """
        new = self._earlier.without_known(records)
        lines = [json.dumps(each._asdict(), separators=(",", ":")).encode() + b"\n" for each in new]
        try:
            await asyncio.to_thread(self._append, lines)
        except OSError as error:
            if not self._failed:
                log.error("usage.file cannot be written: %s; records are dropped from it until it can", error)
            self._failed = True
            return len(new)
        self._failed = False
        return 0

    def _append(self, lines: list[bytes]) -> None:
        with self._appending:
            if not self._file.is_open or not self._file.has_space(sum(map(len, lines))):
                self._file.begin()
            self._file.append(lines)

    async def close(self) -> None:
        """Close the file, after what is being appended; leave that to the process's end if it takes over CLOSE_S."""
        if await asyncio.to_thread(self._appending.acquire, timeout=CLOSE_S):
            self._file.close()
            self._appending.release()
