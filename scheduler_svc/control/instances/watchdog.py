"""Checks for what no event reports: silent executors, stalled engines, models without an instance."""

from __future__ import annotations

import logging

from sage_common.clock import Clock
from scheduler_svc.control.adapters.adapters import Adapters
from scheduler_svc.control.attempts.warm_ups import WarmUps
from scheduler_svc.control.instances.instance_checks import InstanceChecks
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.sleep.device_groups import DeviceGroups
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.errors import ModelChanged, NoInstance
from scheduler_svc.domain.request import RequestState
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

CHECK_S = 0.1
"""Seconds between two checks."""


class Watchdog:
    """Runs the periodic checks."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        requests: RequestTable,
        instances: InstanceChecks,
        warm_ups: WarmUps,
        adapters: Adapters,
        device_groups: DeviceGroups,
        wakeup: Wakeup,
        *,
        orphan_timeout_s: float,
        configured: frozenset[str],
    ) -> None:
        """``orphan_timeout_s`` is how long a request waits while no READY instance can serve it.

        ``configured`` are the models that the configuration names: they are kept even without an instance.
        """
        self._scheduler = scheduler
        self._clock = clock
        self._requests = requests
        self._instances = instances
        self._warm_ups = warm_ups
        self._adapters = adapters
        self._device_groups = device_groups
        self._wakeup = wakeup
        self._orphan_timeout_s = orphan_timeout_s
        self._configured = configured
        self._shadow_failure = ""  # that was logged
        self._conditions: list[str] = []  # logged last

    async def run(self) -> None:
        """Check every ``CHECK_S`` seconds, for ever."""
        while True:
            await self._clock.sleep(CHECK_S)
            self.check()

    def check(self) -> None:
        """Run every check once."""
        self._instances.check()
        self._device_groups.check()
        self._warm_ups.check()
        self._adapters.check()
        for switch in self._scheduler.tick(self._clock.now()):
            log.info("policy %s -> %s: %s", switch.from_policy, switch.to_policy, switch.reason)
            self._wakeup.notify()
        self._note_shadow()
        self._end_orphans()
        self._end_given_up()
        self._tell_conditions()
        self._scheduler.retire_models(keep=self._configured)

    def _note_shadow(self) -> None:
        """Log once that the shadow policy failed, which has switched it off."""
        shadow = self._scheduler.shadow
        failure = shadow.failure if shadow is not None else ""
        if shadow is not None and failure and failure != self._shadow_failure:
            log.error("shadow policy %s is switched off, it failed: %s", shadow.policy, failure)
        self._shadow_failure = failure

    def _end_orphans(self) -> None:
        """End requests that no READY instance could serve for ``orphan_timeout_s``, unless they asked to wait.

        What the journal has waits until its deadline.
        """
        for orphan in self._scheduler.orphans(self._clock.now(), self._orphan_timeout_s):
            live = self._requests.find(orphan.key)
            if live is None or live.state is not RequestState.QUEUED or live.journaled:
                continue
            if orphan.began_with:
                self._requests.end(live, ModelChanged(orphan.model, orphan.began_with))
            else:
                why = f"none that can serve it has been ready for {self._orphan_timeout_s:.0f} s"
                self._requests.end(live, NoInstance(orphan.model, why))

    def _end_given_up(self) -> None:
        """End waiting requests that can no longer meet their deadline, or waited as long as their class may."""
        for key, error in self._scheduler.given_up(self._clock.now()):
            live = self._requests.find(key)
            if live is not None and live.state is RequestState.QUEUED:
                self._requests.end(live, error)

    def _tell_conditions(self) -> None:
        """Log when instances of one model come to run different models, and when they no longer do."""
        conditions = self._scheduler.model_conditions()
        for condition in conditions:
            if condition not in self._conditions:
                log.error("%s; requests go on only where they began", condition)
        if self._conditions and not conditions:
            log.info("all instances of each model run the same one again")
        self._conditions = conditions
