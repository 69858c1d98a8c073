"""Writes log lines in a thread, so that nothing waits for whoever reads stderr."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque

WAITING_LINES = 16_384
WAITING_BYTES = 8 * 2**20
"""Lines, and their bytes, that may wait to be written; further ones are dropped and counted."""

WRITE_BYTES = 64 * 2**10
"""About the most bytes of one write."""

FLUSH_S = 1.0
"""Longest wait of ``flush``, and so of the end of the process."""

RETRY_S = 0.05
"""Pause before the next try at a descriptor that takes nothing and does not block."""

_handlers: weakref.WeakSet[ThreadedLog] = weakref.WeakSet()


class ThreadedLog(logging.Handler):
    """Writes log lines to a file descriptor, by default standard error, in a thread of its own.

    A pipe whose reader stands still, a terminal that is stopped with Ctrl-S, or a disk that hangs holds up that thread
    and no other. Lines that find no room are dropped; once lines are taken again, one says how many were dropped. The
    descriptor is used, not ``sys.stderr``: in its processes vLLM before 0.32 replaces that by a stream that puts a name
    in front of every line.
    """

    def __init__(self, descriptor: int = 2) -> None:
        """``descriptor`` is not closed.  The thread starts with the first line."""
        super().__init__()
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._bytes = 0  # of the lines that wait, and of those being written
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._forked = False
        _handlers.add(self)

    def after_fork(self) -> None:
        """Write at once from now on: the thread, and what waits for it, are the parent's.

        A process that ``multiprocessing`` forks ends without a last ``flush``.
        """
        self._changed = threading.Condition()
        self._lines.clear()
        self._bytes = self._dropped = 0
        self._forked = True

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written; drop it if too many wait."""
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        except Exception:
            self.handleError(record)
            return
        if self._forked:
            self._write(line)
            return
        with self._changed:
            if len(self._lines) >= WAITING_LINES or self._bytes + len(line) > WAITING_BYTES:
                self._dropped += 1
            else:
                self._add(line)

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """Wait until all lines are written, at most FLUSH_S."""
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes, timeout=FLUSH_S)

    def _run(self) -> None:
        while True:
            lines = self._next_lines()
            written = self._write(b"".join(lines))
            with self._changed:
                self._bytes -= sum(map(len, lines))
                if not written:
                    self._dropped += len(lines)
                elif self._dropped:
                    self._add(self._said_of_dropped())
                    self._dropped = 0
                self._changed.notify_all()

    def _next_lines(self) -> list[bytes]:
        """Take at least one line, and WRITE_BYTES or one line more, once there are any."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines)
            taken, size = [], 0
            while self._lines and size < WRITE_BYTES:
                taken.append(self._lines.popleft())
                size += len(taken[-1])
            return taken

    def _write(self, lines: bytes) -> bool:
        """Write all of it, however long that takes; return False if the descriptor takes it no more."""
        left = memoryview(lines)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                time.sleep(RETRY_S)
            except OSError:  # the disk is full, or the reader of the pipe is gone
                return False
        return True

    def _said_of_dropped(self) -> bytes:
        what = "log lines were dropped while stderr took none: %d"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, what, (self._dropped,), None)
        self.filter(record)  # it adds what the format has
        return f"{self.format(record)}\n".encode(errors="backslashreplace")


def _after_fork() -> None:
    for handler in _handlers:
        handler.after_fork()


os.register_at_fork(after_in_child=_after_fork)
