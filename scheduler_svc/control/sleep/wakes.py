"""Wakes instances that requests wait for, outside device groups."""

from __future__ import annotations

import logging
from collections.abc import Callable

from scheduler_svc.control.sleep.sleeps import Sleeps
from scheduler_svc.domain.errors import SchedulerError
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


class Wakes:
    """Has one instance be awake for each kind of request that only sleepers can serve; none that is drained.

    In device groups the group's rule decides that.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        sleeps: Sleeps,
        *,
        may_be_woken: Callable[[str], bool],
        wake: Callable[[str], Instance],
    ) -> None:
        """``may_be_woken``: whether an instance has a session, and is not drained.  ``wake`` raises SchedulerError."""
        self._scheduler = scheduler
        self._sleeps = sleeps
        self._may_be_woken = may_be_woken
        self._wake = wake
        self._refused: dict[str, str] = {}  # by instance that cannot be woken: why, as was logged

    def check(self) -> None:
        """Wake who is wanted now.  One that cannot be woken is logged once for each reason; another one is tried."""
        wanted = self._scheduler.wanted_asleep()
        names = {each.instance_id for asleep in wanted for each in asleep}
        self._refused = {name: why for name, why in self._refused.items() if name in names}
        for asleep in wanted:
            if not any(self._sleeps.wakes(each) for each in asleep):
                self._wake_one(asleep)

    def _wake_one(self, asleep: list[Instance]) -> None:
        there = [i for i in asleep if i.spec.device_group is None and self._may_be_woken(i.instance_id)]
        for each in sorted(there, key=lambda each: (each.wake_s or 0.0, each.instance_id)):
            try:
                self._wake(each.instance_id)
            except SchedulerError as error:
                self._note_refused(each.instance_id, str(error))
            else:
                log.info("instance %s is woken: requests for %s wait", each.instance_id, each.spec.model)
                return

    def _note_refused(self, instance_id: str, why: str) -> None:
        if self._refused.get(instance_id) != why:
            log.warning("instance %s cannot be woken for what waits: %s", instance_id, why)
        self._refused[instance_id] = why
