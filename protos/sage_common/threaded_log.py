"""Writes log lines in a thread, so that nothing waits for whoever reads stderr.

A descriptor has one writer, whatever the number of handlers that log to it: their lines keep their order.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

WAITING_LINES = 16_384
WAITING_BYTES = 8 * 2**20
"""Lines, and their bytes, that may wait to be written; further ones are dropped and counted."""

WRITE_BYTES = select.PIPE_BUF
"""Most bytes of one write, but for a longer line: what other processes write to the same pipe does not split it."""

FLUSH_S = 1.0
"""Longest wait of ``flush``, and so of the end of the process."""

RETRY_S = 0.05
"""Pause before the next try at a descriptor that takes nothing and does not block."""


class ThreadedLog(logging.Handler):
    """Writes log lines to a file descriptor, by default standard error, in the thread of the descriptor's writer.

    The descriptor is used, not ``sys.stderr``: in its processes vLLM before 0.32 replaces that by a stream that puts a
    name in front of every line.
    """

    def __init__(self, descriptor: int = 2) -> None:
        """``descriptor`` is not closed."""
        super().__init__()
        self._writer = _writer_of(descriptor)

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written; drop it if too many wait."""
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        self._writer.add(line, self._said_of_dropped)

    def flush(self) -> None:
        """Wait until all lines of the descriptor are written, at most FLUSH_S."""
        self._writer.flush()

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _said_of_dropped(self, lines: int) -> bytes:
        what = "log lines were dropped while stderr took none: %d"
        record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, what, (lines,), None)
        self.filter(record)  # it adds what the format has
        return self._line(record)


class _Writer:
    """Writes lines to one descriptor, in the order in which they were added.  The thread starts with the first line.

    A pipe whose reader stands still, a terminal that is stopped with Ctrl-S, or a disk that hangs holds up that thread
    and no other. Lines that find no room are dropped; once lines are taken again, one says how many were dropped.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._bytes = 0  # of the lines that wait, and of those being written
        self._dropped = 0
        self._said_of_dropped: Callable[[int], bytes] | None = None  # of the latest handler
        self._thread: threading.Thread | None = None
        self._at_once = False  # there is no thread, and there must be none

    def add(self, line: bytes, said_of_dropped: Callable[[int], bytes]) -> None:
        """Have a line written.  ``said_of_dropped`` makes the line that says how many were dropped."""
        if self._at_once:
            if not self._bytes:  # else the lines before this one are not written, and nothing waits for them any more
                self._write(line)
            return
        with self._changed:
            self._said_of_dropped = said_of_dropped
            if len(self._lines) >= WAITING_LINES or self._bytes + len(line) > WAITING_BYTES:
                self._dropped += 1
            else:
                self._append(line)

    def flush(self) -> None:
        """Wait until all lines are written, at most FLUSH_S."""
        with self._changed:
            self._changed.wait_for(lambda: self._at_once or not self._bytes, timeout=FLUSH_S)

    def end(self) -> None:
        """Write what waits, and from then on at once: the process ends, and a thread that starts then never runs.

        Lines are dropped instead where those before them are not written yet, so that nothing waits for their reader.
        """
        self.flush()
        with self._changed:
            self._at_once = True

    def after_fork(self) -> None:
        """Write at once from now on: the thread, and what waits for it, are the parent's.

        A process that ``multiprocessing`` forks ends without a last ``flush``.
        """
        self._changed = threading.Condition()
        self._lines.clear()
        self._bytes = self._dropped = 0
        self._at_once = True

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        self._changed.notify_all()
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            with contextlib.suppress(RuntimeError):  # there are too many; the next line tries again
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while True:
            lines = self._next_lines()
            written = self._write(b"".join(lines))
            with self._changed:
                self._bytes -= sum(map(len, lines))
                if not written:
                    self._dropped += len(lines)
                elif self._dropped and self._said_of_dropped is not None:
                    with contextlib.suppress(Exception):  # a format that fails must not end the thread of all lines
                        self._append(self._said_of_dropped(self._dropped))
                    self._dropped = 0
                self._changed.notify_all()

    def _next_lines(self) -> list[bytes]:
        """Take at least one line, and further ones up to WRITE_BYTES, once there are any."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines)
            taken: list[bytes] = []
            size = 0
            while self._lines and (not taken or size + len(self._lines[0]) <= WRITE_BYTES):
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


_writers: dict[int, _Writer] = {}
"""The writers of this process by descriptor; one stays for as long as the process."""


def _writer_of(descriptor: int) -> _Writer:
    return _writers.setdefault(descriptor, _Writer(descriptor))  # atomic: of two threads one makes it


def _after_fork() -> None:
    for writer in _writers.values():
        writer.after_fork()


def _at_exit() -> None:
    for writer in list(_writers.values()):
        writer.end()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
