"""The role that a scheduler gave this instance by itself, which the executor keeps for the next scheduler."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from executor_svc.runtime.messages.registration import AutomaticRole


class KeptRole:
    """The latest role that came, and when it came."""

    def __init__(self) -> None:
        self._role: AutomaticRole | None = None
        self._came_at = 0.0  # on the loop's clock

    def keep(self, role: AutomaticRole | None) -> None:
        """Keep a role that comes now; None: there is nothing to keep any more."""
        self._role, self._came_at = role, asyncio.get_running_loop().time()

    def report(self) -> AutomaticRole | None:
        """Return the role with its age now; None if there is none."""
        if self._role is None:
            return None
        kept_s = asyncio.get_running_loop().time() - self._came_at
        return replace(self._role, age_s=self._role.age_s + kept_s)
