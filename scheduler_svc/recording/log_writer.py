"""Writes lines to a file in a thread of its own, so that neither a slow disk nor a full one holds requests up."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from time import monotonic

from scheduler_svc.recording.log_file import LogFile
from scheduler_svc.recording.log_lines import HeaderLine, InstanceLine, Line, LogLine

log = logging.getLogger(__name__)

PENDING_LIMIT = 8_192
"""Lines that may wait to be written; further ones are dropped and counted."""

WRITE_S = 0.2
"""Longest time in seconds that a line waits to be written."""

RETRY_S = 5.0
"""Seconds without an attempt to write after one that failed; lines are dropped and counted meanwhile."""

CLOSE_S = 5.0
"""Seconds that ``close`` waits for what is pending."""

_BATCH = 256  # lines written at once

WRITTEN, DROPPED_FULL, DROPPED_FAILED = "written", "dropped_queue_full", "dropped_not_written"


class LogWriter:
    """Takes lines from the event loop and writes them.

    A file begins with a header and the latest line of each instance that is not gone, so that each can be read alone.
    """

    def __init__(
        self, file: LogFile, header: Callable[[int], HeaderLine], *, now: Callable[[], float] = monotonic
    ) -> None:
        """``header`` makes the header of a file from its number, from 1.  ``now``: seconds, for retries."""
        self._file = file
        self._header = header
        self._now = now
        self._salt = secrets.token_bytes(16)
        self._pending: deque[Line] = deque()
        self._dropped_full = 0
        self._counts: Counter[str] = Counter({WRITTEN: 0, DROPPED_FAILED: 0})
        self._instances: dict[str, InstanceLine] = {}
        self._part = 0
        self._retry_at = 0.0
        self._failed = False  # the last attempt to write
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)

    def counts(self) -> dict[str, int]:
        """Count lines since the start by what became of them: ``WRITTEN``, ``DROPPED_FULL``, ``DROPPED_FAILED``."""
        return {**self._counts, DROPPED_FULL: self._dropped_full}

    def start(self) -> None:
        """Begin the file and start the thread.  Raises OSError if the file cannot be written."""
        self._begin_file()
        self._thread.start()

    def put(self, line: Line) -> None:
        """Take a line.  Returns at once; a line beyond ``PENDING_LIMIT`` is dropped and counted."""
        if len(self._pending) >= PENDING_LIMIT:
            if not self._dropped_full:
                log.warning("recording: %d lines wait to be written; further ones are dropped", PENDING_LIMIT)
            self._dropped_full += 1
            return
        self._pending.append(line)

    async def close(self) -> None:
        """Write what is pending and stop, within ``CLOSE_S`` seconds."""
        self._stop.set()
        if self._thread.ident is None:
            return
        await asyncio.to_thread(self._thread.join, CLOSE_S)
        if self._thread.is_alive():
            log.warning("recording: %d lines were not written within %g s", len(self._pending), CLOSE_S)
        counts = self.counts()
        log.info("recording ended: %s", ", ".join(f"{count} lines {what}" for what, count in counts.items()))

    # ------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        while not self._stop.wait(WRITE_S):
            self.write_pending()
        self.write_pending()
        self._file.close()

    def write_pending(self) -> None:
        """Write the lines that wait.  Never raises; what cannot be written is dropped and counted."""
        while batch := list(self._take(_BATCH)):
            try:
                self._write(batch)
            except Exception as error:  # the thread must live on, whatever a line or a disk does
                self._note_failure(error, len(batch))

    def _take(self, most: int) -> Iterator[Line]:
        for _ in range(most):
            try:
                line = self._pending.popleft()
            except IndexError:
                return
            if isinstance(line, InstanceLine):
                self._know(line)
            yield line

    def _know(self, line: InstanceLine) -> None:
        if line.state in ("lost", "failed"):
            self._instances.pop(line.instance, None)
        else:
            self._instances[line.instance] = line

    def _write(self, batch: list[Line]) -> None:
        if self._failed and self._now() < self._retry_at:
            self._counts[DROPPED_FAILED] += len(batch)
            return
        encoded = [self._encode(line) for line in batch]
        if not self._file.is_open or not self._file.has_space(sum(map(len, encoded))):
            self._begin_file()
        self._file.append(encoded)
        self._counts[WRITTEN] += len(batch)
        if self._failed:
            self._failed = False
            log.warning("recording goes on; %d lines were dropped so far", self._counts[DROPPED_FAILED])

    def _begin_file(self) -> None:
        self._file.begin()
        self._part += 1
        first: list[LogLine] = [self._header(self._part), *self._instances.values()]
        try:
            self._file.append([self._encode(each) for each in first])
        except OSError:
            self._file.close()  # a file without a header cannot be read: the next attempt begins another
            raise

    def _encode(self, line: LogLine) -> bytes:
        return json.dumps(line.content(self._salt), allow_nan=False, separators=(",", ":")).encode() + b"\n"

    def _note_failure(self, error: Exception, lines: int) -> None:
        self._counts[DROPPED_FAILED] += lines
        self._retry_at = self._now() + RETRY_S
        if not self._failed:
            log.error("recording cannot be written: %s; lines are dropped and counted until it can", error)
        self._failed = True
