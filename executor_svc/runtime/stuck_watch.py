"""Whether an engine that holds work stands still: others may wait for the memory that it has."""

from __future__ import annotations

from executor_svc.runtime.engine_port import EngineLoad

KNOWN_WAIT_FACTOR = 5.0
"""Times the limit for which an engine may stand still of which is known what its requests wait for."""

LONGEST_STEP_S = 15.0
"""Most seconds that count between two looks: the process may have stood still itself."""


class StuckWatch:
    """Adds up how long the engine held work without an iteration.  An iteration begins anew; an idle time does not.

    So an engine is found that stands still although its requests are taken from it and others are tried.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._iterations = -1
        self._busy = False
        self._looked_at = 0.0
        self._still_s = 0.0

    def look(self, load: EngineLoad, now: float, *, other_work: str = "") -> str:
        """Take the engine's load; return in words that it is stuck, empty if it is not.  ``now``: in seconds.

        ``other_work``: what the engine does for which requests may wait, in words; empty: nothing.
        """
        if load.iterations != self._iterations:
            self._still_s = 0.0
        elif self._busy and load.unfinished:
            self._still_s += min(now - self._looked_at, LONGEST_STEP_S)
        self._iterations, self._busy, self._looked_at = load.iterations, load.unfinished > 0, now
        waits_for = load.known_wait or other_work
        limit_s = self._limit_s * (KNOWN_WAIT_FACTOR if waits_for else 1.0)
        if not self._busy or self._still_s < limit_s:
            return ""
        waits = f" (it waits for {waits_for})" if waits_for else ""
        return f"it holds {load.unfinished} requests and did no iteration for {self._still_s:.0f} s{waits}"
