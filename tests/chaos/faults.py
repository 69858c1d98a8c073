"""Faults of processes and links, drawn by chance; the same seed gives the same sequence."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from sage_client import AsyncClient, InstanceState, SageError
from tests.chaos.gaps import Gaps
from tests.support.network_proxy import NetworkProxy
from tests.support.service_process import ServiceProcess

WEIGHTS = {
    "executor killed": 4,
    "executor stopped": 2,
    "scheduler killed": 4,
    "scheduler terminated": 2,
    "scheduler stopped": 1,
    "both killed": 1,
    "link cut": 3,
    "link delayed": 2,
    "link half open": 2,
    "clients' link cut": 2,
}
PAUSE_S = (0.3, 3.0)
STOPPED_S = (0.2, 4.0)
DETECTED_WITHIN_S = 8.0
LOOK_EVERY_S = 0.02


@dataclass
class Faults:
    """Strikes one thing after the other.  ``detected``: seconds until the scheduler knew, by kind."""

    scheduler: ServiceProcess
    executors: Sequence[ServiceProcess]
    links: Sequence[NetworkProxy]  # of the executors, in their order
    clients_link: NetworkProxy
    watcher: AsyncClient
    gaps: Gaps
    dice: random.Random
    detected: dict[str, list[float]] = field(default_factory=dict)

    async def strike(self, seconds: float) -> None:
        """Strike until the time is over, and let everything run again."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "executor killed": self._executor_killed,
            "executor stopped": self._executor_stopped,
            "scheduler killed": self._scheduler_killed,
            "scheduler terminated": self._scheduler_terminated,
            "scheduler stopped": self._scheduler_stopped,
            "both killed": self._both_killed,
            "link cut": self._link_cut,
            "link delayed": self._link_delayed,
            "link half open": self._link_half_open,
            "clients' link cut": self.clients_link.cut,
        }
        while loop.time() < end:
            await asyncio.sleep(self.dice.uniform(*PAUSE_S))
            (kind,) = self.dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
            if self.scheduler.running and all(each.running for each in self.executors):
                self.gaps.struck(kind, loop.time())
                await kinds[kind]()

    def _number(self) -> int:
        return self.dice.randrange(len(self.executors))

    async def _executor_killed(self) -> None:
        victim = self.executors[self._number()]
        victim.kill()
        await self._detect("executor killed", victim.name)

    async def _executor_stopped(self) -> None:
        victim = self.executors[self._number()]
        victim.freeze()
        await asyncio.sleep(self.dice.uniform(*STOPPED_S))
        victim.thaw()

    async def _scheduler_killed(self) -> None:
        self.scheduler.kill()

    async def _scheduler_terminated(self) -> None:
        self.scheduler.terminate()

    async def _scheduler_stopped(self) -> None:
        self.scheduler.freeze()
        await asyncio.sleep(self.dice.uniform(0.2, 1.5))
        self.scheduler.thaw()

    async def _both_killed(self) -> None:
        self.scheduler.kill()
        self.executors[self._number()].kill()

    async def _link_cut(self) -> None:
        number = self._number()
        await self.links[number].cut()
        await self._detect("link cut", self.executors[number].name)

    async def _link_delayed(self) -> None:
        link = self.links[self._number()]
        link.delay_s = self.dice.uniform(0.05, 0.3)
        await asyncio.sleep(self.dice.uniform(*STOPPED_S))
        link.delay_s = 0.0

    async def _link_half_open(self) -> None:
        link = self.links[self._number()]
        link.blackhole()
        await asyncio.sleep(self.dice.uniform(*STOPPED_S))
        await link.heal()

    async def _detect(self, kind: str, instance_id: str) -> None:
        """Measure how long the scheduler takes an instance for healthy that is not."""
        loop = asyncio.get_running_loop()
        struck = loop.time()
        while loop.time() - struck < DETECTED_WITHIN_S:
            try:
                found = await self.watcher.get_instance(instance_id)
            except SageError:
                return
            if found.state is not InstanceState.READY:
                self.detected.setdefault(kind, []).append(loop.time() - struck)
                return
            await asyncio.sleep(LOOK_EVERY_S)
