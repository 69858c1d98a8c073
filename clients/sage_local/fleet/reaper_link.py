"""The supervisor's connection to its reaper process."""

from __future__ import annotations

import contextlib
import subprocess
import sys


class ReaperLink:
    """Starts a reaper process and sends it the list of sessions; starts another one if it died."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._sessions: set[int] = set()
        self._process = self._start()

    def watch(self, session: int) -> None:
        """Add a session, whose processes the reaper kills if this process ends."""
        self._sessions.add(session)
        self._send(f"+{session}\n")

    def forget(self, session: int) -> None:
        """Remove a session of which no process is left."""
        self._sessions.discard(session)
        self._send(f"-{session}\n")

    def close(self) -> None:
        """End the reaper.  It first waits for the grace period and kills what is left of its sessions."""
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

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            self._process.wait(10.0)
            self._process = self._start()
            for session in self._sessions:
                self._send(f"+{session}\n")
