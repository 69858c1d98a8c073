"""Reads single keys from a terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from typing import Self


class Keys:
    """Reads keys as they are pressed, without echo, while the context is entered; Ctrl-C still interrupts.

    If stdin is not a terminal, no key is ever pressed.
    """

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno() if sys.stdin.isatty() else None

    def __enter__(self) -> Self:
        if self._fd is not None:
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def pressed(self, timeout_s: float) -> str:
        """Wait at most ``timeout_s`` seconds for keys and return them; empty if none was pressed."""
        if self._fd is None:
            time.sleep(timeout_s)
            return ""
        ready, _, _ = select.select([self._fd], [], [], timeout_s)
        return os.read(self._fd, 64).decode(errors="replace") if ready else ""
