"""Works out the desired numbers of instances, again and again."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from sage_common.clock import Clock
from scheduler_svc.domain.errors import LimitReached, Recovering
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.scaling.desired_instances import DesiredInstances
from scheduler_svc.domain.scaling.settings import ScalingSettings
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

RETURN_S = 6.0
"""Seconds in which executors find a new scheduler: their longest pause between two tries, and one more."""
MOST_FOLLOWERS = 256
"""How many callers may follow the numbers at the same time."""


class ScalingWatch:
    """Has the scheduler look at the load every ``interval_s``, logs and counts changes, and tells who follows them.

    The first look is once executors had time to come back: before that, no number would be wanted of a fleet that is
    there and not known yet.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        waiting: Callable[[], Mapping[str, int]],
        *,
        recovering: Callable[[], bool],
        first_look_at: float,
    ) -> None:
        """Look at nothing yet.

        ``waiting``: requests by model that wait for an instance and are in no queue yet.  ``recovering``: whether
        instances that an earlier scheduler saw may still come back.  ``first_look_at``: the earliest, seconds on the
        control clock.
        """
        self._scheduler = scheduler
        self._clock = clock
        self._waiting = waiting
        self._recovering = recovering
        self._first_look_at = first_look_at
        self._looked = False
        self._before: dict[tuple[str, InstanceRole], int] = {}
        self._followers: set[asyncio.Event] = set()
        self.changes: Counter[tuple[str, InstanceRole, str]] = Counter()
        """Changes of desired numbers by model, role and direction: up or down; of models that there are."""

    @property
    def settings(self) -> ScalingSettings:
        """How the number of instances follows the load."""
        return self._scheduler.settings.scaling

    @property
    def desired(self) -> Sequence[DesiredInstances]:
        """The desired numbers as of the last look, sorted by model and role; empty where scaling is off."""
        return self._scheduler.desired_instances

    def known(self) -> Sequence[DesiredInstances]:
        """Return the desired numbers as of the last look.  Raises Recovering before the first."""
        if self.settings.enabled and not self._looked:
            raise Recovering(self.settings.interval_s)
        return self.desired

    def find(self, model: str, role: InstanceRole) -> DesiredInstances | None:
        """Return the desired number of one model and role; None if there is none."""
        return next((each for each in self.desired if (each.model, each.role) == (model, role)), None)

    async def run(self) -> None:
        """Look at the load for ever; returns at once where scaling is off."""
        while self.settings.enabled:
            if self._clock.now() >= self._first_look_at and not self._recovering():
                self.look()
            await self._clock.sleep(self.settings.interval_s)

    def look(self) -> None:
        """Work out the desired numbers once."""
        found = self._scheduler.scale(self._waiting(), self._clock.now())
        self._looked = True
        for each in found:
            self._note(each)
        kept = {(each.model, each.role) for each in found}
        self._before = {key: count for key, count in self._before.items() if key in kept}
        self.changes = Counter({key: n for key, n in self.changes.items() if key[:2] in kept})
        for follower in self._followers:
            follower.set()

    def _note(self, now: DesiredInstances) -> None:
        key = now.model, now.role
        before = self._before.get(key)
        self._before[key] = now.desired
        if before is None or before == now.desired:
            return
        self.changes[*key, "up" if now.desired > before else "down"] += 1
        log.info(
            "%s %s: %d -> %d instances desired (%d ready, %d starting): %s",
            *(now.model, now.role.value, before, now.desired, now.ready, now.starting, now.reason),
        )

    async def follow(self) -> AsyncGenerator[None, None]:
        """Yield at once, and then after each look.  Raises LimitReached for too many followers."""
        if len(self._followers) >= MOST_FOLLOWERS:
            raise LimitReached("followers of desired instances", MOST_FOLLOWERS)
        looked = asyncio.Event()
        self._followers.add(looked)
        try:
            while True:
                yield
                await looked.wait()
                looked.clear()
        finally:
            self._followers.discard(looked)
