"""What is written to standard output and error past Python's logging, as JSON lines too: warnings of native code,
progress bars, loggers of libraries that bring handlers of their own.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from executor_svc.telemetry import logs

LOGGER = "stderr"
"""What such a line has for a logger; of standard output as well."""

LONGEST = 1 << 16
"""Bytes of a line; what is longer becomes several."""

LAST_WORDS_S = 5.0
"""At the end, for what is still in the pipe."""

_ENDS = re.compile(rb"[\r\n]+")


@contextmanager
def stray_lines_in_json(instance_id: str) -> Iterator[None]:
    """Inside, descriptors 1 and 2 of this process, and of every one it starts, lead here through a pipe.

    JSON lines of engine processes go on as they are, anything else becomes one.  This process's own log lines
    do not take that way: none is lost if it is killed.  What is written after the end, by whom may be, is not read.
    """
    originals = os.dup(1), os.dup(2)
    source, sink = os.pipe()
    logs.outlet = originals[1]
    reader = threading.Thread(target=_read, args=(source, originals[1], instance_id), name="stray-lines", daemon=True)
    _lead((sink, sink))
    reader.start()
    try:
        yield
    finally:
        _lead(originals)
        os.set_blocking(source, False)  # from now on the reader ends where the pipe is empty,
        os.set_blocking(sink, False)  # and whoever writes into a full one is refused instead of stopped
        with suppress(BlockingIOError):
            os.write(sink, b"\n")  # wakes it
        os.close(sink)
        reader.join(LAST_WORDS_S)


def _lead(to: tuple[int, int]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for number, descriptor in enumerate(to, start=1):
        os.dup2(descriptor, number)


def _read(source: int, outlet: int, instance_id: str) -> None:
    about, lines = logs.AboutFilter(instance_id), logs.JsonLines()
    rest = b""
    while True:
        try:
            chunk = os.read(source, LONGEST)
        except BlockingIOError:
            chunk = b""
        *whole, rest = _ENDS.split(rest + chunk)
        if not chunk or len(rest) >= LONGEST:
            whole, rest = [*whole, rest], b""
        for line in whole:
            if line.strip():
                _write(outlet, line if _is_log_line(line) else _made(line, about, lines))
        if not chunk:
            return


def _is_log_line(line: bytes) -> bool:
    try:
        found = json.loads(line) if line.startswith(b"{") else None
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"time", "level", "logger", "message"} <= found.keys()


def _made(line: bytes, about: logging.Filter, lines: logging.Formatter) -> bytes:
    text = line.decode(errors="backslashreplace").rstrip()
    record = logging.LogRecord(LOGGER, logging.INFO, "", 0, text, None, None)
    about.filter(record)
    return lines.format(record).encode(errors="backslashreplace")


def _write(outlet: int, line: bytes) -> None:
    """What cannot be written is dropped: a reader that gave up would block everybody who writes."""
    left = line + b"\n"
    with suppress(OSError):
        while left:
            left = left[os.write(outlet, left) :]
