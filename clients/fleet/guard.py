"""The supervisor's side of the watchman."""

from __future__ import annotations

import contextlib
import subprocess
import sys


class Guard:
    """Tells a watchman which sessions there are.  A watchman that died is replaced."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._sessions: set[int] = set()
        self._watchman = self._start()

    def watch(self, session: int) -> None:
        self._sessions.add(session)
        self._tell(f"+{session}\n")

    def forget(self, session: int) -> None:
        self._sessions.discard(session)
        self._tell(f"-{session}\n")

    def close(self) -> None:
        """Lets the watchman go; what is still watched gets its grace and is then killed."""
        assert self._watchman.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._watchman.stdin.close()
        try:
            self._watchman.wait(self._grace_s + 10.0)
        except subprocess.TimeoutExpired:
            self._watchman.kill()
            self._watchman.wait(10.0)

    @property
    def pid(self) -> int:
        return self._watchman.pid

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "fleet.watchman", f"{self._grace_s:g}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def _tell(self, line: str) -> None:
        assert self._watchman.stdin is not None
        try:
            self._watchman.stdin.write(line)
            self._watchman.stdin.flush()
        except (BrokenPipeError, ValueError):
            self._watchman.wait(10.0)
            self._watchman = self._start()
            for session in self._sessions:
                self._tell(f"+{session}\n")
