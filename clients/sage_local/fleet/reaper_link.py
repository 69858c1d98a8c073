"""The supervisor's connection to its reaper process."""

from __future__ import annotations

import contextlib
import subprocess
import sys


class ReaperLink:
    """Starts a reaper process and tells it which sessions exist; replaces one that died."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._sessions: set[int] = set()
        self._process = self._start()

    def watch(self, session: int) -> None:
        """Have a session's processes killed if this process ends."""
        self._sessions.add(session)
        self._tell(f"+{session}\n")

    def forget(self, session: int) -> None:
        """Take a session off the reaper's list: none of its processes is left."""
        self._sessions.discard(session)
        self._tell(f"-{session}\n")

    def close(self) -> None:
        """End the reaper; it first kills what is left of the sessions on its list, after the grace period."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(self._grace_s + 10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10.0)

    @property
    def pid(self) -> int:
        """Process id of the reaper."""
        return self._process.pid

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "sage_local.fleet.reaper", f"{self._grace_s:g}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            self._process.wait(10.0)
            self._process = self._start()
            for session in self._sessions:
                self._tell(f"+{session}\n")
