"""Notices that files changed, by asking the file system for their state, and has them read again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

State = tuple[int, int, int] | None
"""Modification time in ns, size in bytes and inode of a file; None while it cannot be looked at."""


class FileWatch:
    """Remembers the state of some files, and says when one differs.

    Files that change between two looks are left alone until they rest: who writes them may be in the middle of it, and
    half a file of keys can be a file of half the keys.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._known = self._seen = self._states()

    def changed(self) -> bool:
        """Look at the files; return whether they rest and differ from what this method was true for the last time."""
        before, self._seen = self._seen, self._states()
        if self._seen == self._known or self._seen != before:
            return False
        self._known = self._seen
        return True

    def _states(self) -> tuple[State, ...]:
        return tuple(_state(path) for path in self._paths)


CHECK_S = 1.0
"""Seconds between two looks at the files."""


class Reloader:
    """Has files read again when they changed, and when it is asked to.

    ``checks`` look at their files each; called with True they read them in any case.  They raise nothing and run in a
    thread, so that a slow file system does not hold up the event loop.
    """

    def __init__(self, checks: Iterable[Callable[[bool], None]]) -> None:
        self._checks = tuple(checks)
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Have all files read soon, whether they changed or not."""
        self._asked.set()

    async def run(self) -> None:
        """Look at the files every CHECK_S until cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), CHECK_S)
            forced = self._asked.is_set()
            self._asked.clear()
            await asyncio.to_thread(self._check, forced)

    def _check(self, forced: bool) -> None:
        for check in self._checks:
            check(forced)


def _state(path: Path) -> State:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
