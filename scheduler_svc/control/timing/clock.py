"""Time as control knows it.  Nothing in this room asks asyncio or the system for it: whole-system fault schedules run
in virtual time on ``virtual_clock``; the service runs on ``scheduler_svc.asyncio_clock``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None:
        """Idempotent; does nothing once the callback has run."""
        ...


class ControlClock(Protocol):
    def now(self) -> float:
        """Monotonic seconds; the zero is arbitrary."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Run ``callback`` on the loop once ``now() >= when``."""
        ...

    async def sleep(self, seconds: float) -> None: ...
