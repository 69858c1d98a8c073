"""Executors that hang: their processes run, and the scheduler has not heard of them for long."""

from __future__ import annotations

from collections.abc import Iterable

HUNG_S = 60.0
"""Seconds after which an executor hangs that the scheduler has lost; one that runs dials again within a few."""

LONGEST_STEP_S = 5.0
"""Most seconds that count between two looks: all processes of the machine may have stood still, this one, too."""


class HungWatch:
    """Adds up for how long each process has been silent.  Bounded by the executors that are silent now."""

    def __init__(self) -> None:
        self._silent_s: dict[tuple[str, int], float] = {}  # by executor and number of its process
        self._looked_at = 0.0

    def look(self, silent: Iterable[tuple[str, int]], now: float) -> list[str]:
        """Return the executors that hang.  One that is killed and stays is returned again after ``HUNG_S``.

        ``silent``: executors whose processes run while the scheduler has lost them, each with how often it was
        restarted: another process counts anew.  ``now``: in seconds.
        """
        step_s, self._looked_at = min(now - self._looked_at, LONGEST_STEP_S), now
        before = self._silent_s
        self._silent_s = {each: before[each] + step_s if each in before else 0.0 for each in silent}
        hung = [each for each, silent_s in self._silent_s.items() if silent_s >= HUNG_S]
        self._silent_s |= dict.fromkeys(hung, 0.0)
        return [name for name, _ in hung]
