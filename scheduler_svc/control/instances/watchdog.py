"""Checks for what no event reports: silent executors, stalled engines, models without an instance."""

from __future__ import annotations

import logging

from sage_common.clock import Clock
from scheduler_svc.control.attempts.warm_ups import WarmUps
from scheduler_svc.control.instances.sessions import Sessions
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.errors import NoInstance
from scheduler_svc.domain.instance_state import STARTING, InstanceState
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
        sessions: Sessions,
        warm_ups: WarmUps,
        wakeup: Wakeup,
        *,
        orphan_timeout_s: float,
        configured: frozenset[str],
    ) -> None:
        """``orphan_timeout_s`` is how long a request waits for a model that no instance serves.

        ``configured`` are the models that the configuration names: they are kept even without an instance.
        """
        self._scheduler = scheduler
        self._clock = clock
        self._requests = requests
        self._sessions = sessions
        self._warm_ups = warm_ups
        self._wakeup = wakeup
        self._orphan_timeout_s = orphan_timeout_s
        self._configured = configured
        self._shadow_failure = ""  # that was logged
        self._unserved_since: dict[str, float] = {}  # by model with requests waiting

    async def run(self) -> None:
        """Check every ``CHECK_S`` seconds, for ever."""
        while True:
            await self._clock.sleep(CHECK_S)
            self.check()

    def check(self) -> None:
        """Run every check once."""
        self._sessions.check_leases()
        self._sessions.check_progress()
        self._sessions.check_instances()
        self._warm_ups.check()
        for switch in self._scheduler.tick(self._clock.now()):
            log.info("policy %s -> %s: %s", switch.from_policy, switch.to_policy, switch.reason)
            self._wakeup.notify()
        self._note_shadow()
        self._end_orphans()
        self._scheduler.retire_models(keep=self._configured)

    def _note_shadow(self) -> None:
        """Log once that the shadow policy failed, which has switched it off."""
        shadow = self._scheduler.shadow
        failure = shadow.failure if shadow is not None else ""
        if shadow is not None and failure and failure != self._shadow_failure:
            log.error("shadow policy %s is switched off, it failed: %s", shadow.policy, failure)
        self._shadow_failure = failure

    def _end_orphans(self) -> None:
        """End requests whose model no instance has served for ``orphan_timeout_s``, unless they asked to wait."""
        now = self._clock.now()
        unserved = {
            model for model, queue in self._scheduler.queues().items() if queue.waiting and not self._served(model)
        }
        self._unserved_since = {m: self._unserved_since.get(m, now) for m in unserved}
        late = {m for m, since in self._unserved_since.items() if now - since >= self._orphan_timeout_s}
        if not late:
            return
        for live in self._requests:
            request = live.request
            if live.state is RequestState.QUEUED and request.model in late and not request.wait_for_instance:
                why = f"none has been ready for {self._orphan_timeout_s:.0f} s"
                self._requests.end(live, NoInstance(request.model, why))

    def _served(self, model: str) -> bool:
        """Return whether an instance of the model takes requests, or starts."""
        serving_or_starting = STARTING | {InstanceState.READY}
        return any(i.state in serving_or_starting for i in self._scheduler.instances() if i.spec.model == model)
