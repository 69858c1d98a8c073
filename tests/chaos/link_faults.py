"""Faults of connections: cut, slow, or open and silent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.faults import Kinds
from tests.chaos.process_faults import STOPPED_S, Detection
from tests.support.network_proxy import NetworkProxy


@dataclass
class LinkFaults:
    """Faults of the executors' links, and of the one of the clients' sessions."""

    links: Sequence[NetworkProxy]
    names: Sequence[str]  # of the executors, in the order of their links
    clients_link: NetworkProxy
    detection: Detection
    dice: random.Random

    @property
    def kinds(self) -> Kinds:
        return {**self.short, "link half open": (2, self._half_open)}

    @property
    def short(self) -> Kinds:
        """Those over which no executor is given up."""
        return {
            "link cut": (3, self._cut),
            "link delayed": (2, self._delay),
            "clients' link cut": (2, self.clients_link.cut),
        }

    async def _cut(self) -> None:
        number = self.dice.randrange(len(self.links))
        await self.links[number].cut()
        await self.detection.measure("link cut", self.names[number])

    async def _delay(self) -> None:
        link = self.dice.choice(self.links)
        link.delay_s = self.dice.uniform(0.05, 0.3)
        await asyncio.sleep(self.dice.uniform(*STOPPED_S))
        link.delay_s = 0.0

    async def _half_open(self) -> None:
        link = self.dice.choice(self.links)
        link.blackhole()
        await asyncio.sleep(self.dice.uniform(*STOPPED_S))
        await link.heal()
