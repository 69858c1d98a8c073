"""Executors that hang: their processes run, and the scheduler has not heard of them for long."""

from __future__ import annotations

from collections.abc import Iterable

HUNG_S = 60.0
"""Seconds after which an executor hangs that the scheduler has lost; one that runs dials again within a few."""


class HungWatch:
    """Remembers since when each process has been silent.  Bounded by the executors that are silent now."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], float] = {}  # by executor and number of its process

    def look(self, silent: Iterable[tuple[str, int]], now: float) -> list[str]:
        """Return the executors that hang.

        ``silent``: executors whose processes run while the scheduler has lost them, each with how often it was
        restarted: another process counts anew.  ``now``: in seconds.
        """
        self._since = {each: self._since.get(each, now) for each in silent}
        return [name for (name, _), since in self._since.items() if now - since >= HUNG_S]
