"""Which instances the scheduler lists: those that registered, until they have been gone for a while."""

from __future__ import annotations

import logging

from sage_common.clock import Clock
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.domain.errors import LimitReached
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import GONE
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


class InstanceList:
    """Enters instances, and forgets those that are gone: after ``forget_after_s``, or earlier to make room."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        table: SessionTable,
        readiness: Readiness,
        settings: SessionSettings,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._table = table
        self._readiness = readiness
        self._settings = settings

    def __contains__(self, instance_id: str) -> bool:
        return self._scheduler.find_instance(instance_id) is not None

    def enter(self, spec: InstanceSpec) -> Instance:
        """Enter an instance that registers, and return it.  A new engine is not to blame for failures of the old one.

        At a limit, those that are gone make room: the longest gone first, cordoned ones last.
        Raises LimitReached if the limit is reached all the same.
        """
        known = self._scheduler.find_instance(spec.instance_id)
        if known is not None and known.spec.engine_start_id != spec.engine_start_id:
            self._readiness.cool_downs.forget(spec.instance_id)
        now, cordoned = self._clock.now(), self._readiness.drains.cordoned
        gone = (i for i in self._scheduler.instances() if i.state in GONE and i.instance_id not in self._table)
        longest_first = iter(sorted(gone, key=lambda i: (cordoned(i.instance_id), i.state_since)))
        while True:
            try:
                return self._scheduler.register(spec, now)
            except LimitReached:
                victim = next((i for i in longest_first if i.instance_id != spec.instance_id), None)
                if victim is None:
                    raise
                log.info("instance %s, which is gone, is forgotten to make room", victim.instance_id)
                self._readiness.forget(victim.instance_id)

    def check(self) -> None:
        """Finish drains whose last reservation ended without an event; forget what is gone for ``forget_after_s``."""
        now = self._clock.now()
        for instance in self._scheduler.instances():
            instance_id = instance.instance_id
            self._readiness.finish_drain(instance_id)
            gone = instance_id not in self._table
            if gone and now - instance.state_since > self._settings.forget_after_s:
                self._readiness.forget(instance_id)
