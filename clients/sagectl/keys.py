"""Single keys from a terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from typing import Self


class Keys:
    """While entered, keys are read as they are pressed and not echoed; Ctrl-C interrupts as ever.

    Where stdin is no terminal there are no keys, only time.
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
        """What was pressed, waiting at most so long for it; else empty."""
        if self._fd is None:
            time.sleep(timeout_s)
            return ""
        ready, _, _ = select.select([self._fd], [], [], timeout_s)
        return os.read(self._fd, 64).decode(errors="replace") if ready else ""
