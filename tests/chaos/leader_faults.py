"""Faults of schedulers that stand by for each other, and of the database that they share."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from tests.chaos.faults import Kinds
from tests.support.postgres import Postgres
from tests.support.standby_fleet import LEASE_S, StandbyFleet

STOPPED_S = (0.2, 3 * LEASE_S)


@dataclass
class LeaderFaults:
    """Faults of the one that leads."""

    fleet: StandbyFleet
    postgres: Postgres
    dice: random.Random

    @property
    def kinds(self) -> Kinds:
        return {
            "leader killed": (3, self._kill),
            "leader terminated": (2, self._terminate),
            "leader stopped": (3, self._stop),
            "database restarted": (2, self._restart_database),
            "database stopped": (1, self._stop_database),
        }

    async def _kill(self) -> None:
        (await self.fleet.leader()).kill()

    async def _terminate(self) -> None:
        (await self.fleet.leader()).terminate()

    async def _stop(self) -> None:
        """Stop it for less or more than its lease: then another one leads when it goes on."""
        leader = await self.fleet.leader()
        leader.freeze()
        await asyncio.sleep(self.dice.uniform(*STOPPED_S))
        leader.thaw()

    async def _restart_database(self) -> None:
        await asyncio.to_thread(self.postgres.restart)

    async def _stop_database(self) -> None:
        self.postgres.pause()
        await asyncio.sleep(self.dice.uniform(*STOPPED_S))
        self.postgres.resume()
