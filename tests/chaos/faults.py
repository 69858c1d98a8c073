"""Faults, drawn by chance one after the other; the same seed gives the same sequence."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tests.chaos.gaps import Gaps

PAUSE_S = (0.3, 3.0)

Kinds = Mapping[str, tuple[int, Callable[[], Awaitable[None]]]]
"""By name: how often one of this kind is drawn, relative to others, and what strikes."""


@dataclass(kw_only=True)
class Faults:
    """Strikes one thing after the other, each time when everything ``is_up``."""

    kinds: Kinds
    is_up: Callable[[], bool]
    gaps: Gaps  # where it is written down when each struck
    dice: random.Random

    async def strike(self, seconds: float) -> None:
        """Strike until the time is over; then everything runs, or is being started again."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        weights = [weight for weight, _ in self.kinds.values()]
        while loop.time() < end:
            await asyncio.sleep(self.dice.uniform(*PAUSE_S))
            (kind,) = self.dice.choices(list(self.kinds), weights)
            if self.is_up():
                self.gaps.struck(kind, loop.time())
                await self.kinds[kind][1]()
