"""Faults of processes: SIGKILL, SIGSTOP and SIGTERM of the scheduler and of executors."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from sage_client import AsyncClient, InstanceState, SageError
from tests.chaos.faults import Kinds
from tests.support.service_process import ServiceProcess

STOPPED_S = (0.2, 4.0)
SCHEDULER_STOPPED_S = (0.2, 1.5)
DETECTED_WITHIN_S = 8.0
LOOK_EVERY_S = 0.02


@dataclass
class Detection:
    """Measures how long a scheduler takes an instance for healthy that is not; ``seconds`` by kind of fault."""

    watcher: AsyncClient
    seconds: dict[str, list[float]] = field(default_factory=dict)

    async def measure(self, kind: str, instance_id: str) -> None:
        """Wait until the scheduler knows, at most ``DETECTED_WITHIN_S``."""
        loop = asyncio.get_running_loop()
        struck = loop.time()
        while loop.time() - struck < DETECTED_WITHIN_S:
            try:
                found = await self.watcher.get_instance(instance_id)
            except SageError:
                return
            if found.state is not InstanceState.READY:
                self.seconds.setdefault(kind, []).append(loop.time() - struck)
                return
            await asyncio.sleep(LOOK_EVERY_S)


@dataclass
class SchedulerFaults:
    """Faults of the only scheduler, after which executors go on."""

    scheduler: ServiceProcess
    dice: random.Random

    @property
    def kinds(self) -> Kinds:
        return {"scheduler killed": (4, self._kill), "scheduler terminated": (2, self._terminate), **self.pauses}

    @property
    def pauses(self) -> Kinds:
        """Those after which the same process goes on."""
        return {"scheduler stopped": (1, self._stop)}

    async def _kill(self) -> None:
        self.scheduler.kill()

    async def _terminate(self) -> None:
        self.scheduler.terminate()

    async def _stop(self) -> None:
        self.scheduler.freeze()
        await asyncio.sleep(self.dice.uniform(*SCHEDULER_STOPPED_S))
        self.scheduler.thaw()


@dataclass
class ExecutorFaults:
    """Faults of one executor at a time; with ``both``, of the scheduler at once."""

    executors: Sequence[ServiceProcess]
    detection: Detection
    dice: random.Random

    @property
    def kinds(self) -> Kinds:
        return {"executor killed": (4, self._kill), "executor stopped": (2, self._stop)}

    def both(self, scheduler: ServiceProcess) -> Kinds:
        """Return the fault that no output of a request may survive."""

        async def kill() -> None:
            scheduler.kill()
            self.dice.choice(self.executors).kill()

        return {"both killed": (1, kill)}

    async def _kill(self) -> None:
        victim = self.dice.choice(self.executors)
        victim.kill()
        await self.detection.measure("executor killed", victim.name)

    async def _stop(self) -> None:
        victim = self.dice.choice(self.executors)
        victim.freeze()
        await asyncio.sleep(self.dice.uniform(*STOPPED_S))
        victim.thaw()
