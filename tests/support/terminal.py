"""A command in a terminal of its own: what it shows, and keys pressed in it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Mapping, Sequence
from typing import Self

from tests.support.eventually import eventually

HOME = "\x1b[H"  # begins a drawing
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>][A-Z0-9]?")


class Terminal:
    """Runs on the event loop it is entered on; killed at the latest when it is left."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, columns: int = 80, lines: int = 24
    ) -> None:
        self._command = list(command)
        self._environment = {**os.environ, **environment, "TERM": "xterm-256color"}
        self._environment.pop("COLUMNS", None)
        self._environment.pop("LINES", None)
        self._size = struct.pack("HHHH", lines, columns, 0, 0)
        self.output = ""  # all of it, escapes and all

    async def __aenter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, self._size)
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=theirs, stdout=theirs, stderr=theirs, env=self._environment, start_new_session=True
        )
        os.close(theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.running:
            self._process.kill()
        await asyncio.wait_for(self._process.wait(), 10)
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)

    def _read(self) -> None:
        try:
            self.output += os.read(self._ours, 65_536).decode(errors="replace")
        except OSError:  # it ended
            asyncio.get_running_loop().remove_reader(self._ours)

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    @property
    def text(self) -> str:
        """What the screen shows: the last time it was drawn from its top to its end."""
        drawn = self.output.split(HOME)
        return _ESCAPES.sub("", drawn[-2] if len(drawn) > 1 else self.output)

    async def shows(self, wanted: str, *, within_s: float = 20.0) -> None:
        with contextlib.suppress(AssertionError):
            await eventually(lambda: wanted in self.text, within_s=within_s)
        assert wanted in self.text, f"{wanted!r} is not in: {self.text}"

    async def ended(self, *, within_s: float = 15.0) -> int:
        return await asyncio.wait_for(self._process.wait(), within_s)
