"""Time as the domain knows it: seconds on a monotonic clock that is handed in, never asked for."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Domain code itself takes ``now`` as an argument; whoever calls it reads one of these."""

    def now(self) -> float:
        """Monotonic seconds; the zero is arbitrary."""
        ...
