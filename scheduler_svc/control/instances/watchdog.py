"""What has to be looked at because nothing announces it: silence, stalls, fleets that went away for good."""

from __future__ import annotations

import logging

from scheduler_svc.control.attempts.warm_ups import WarmUps
from scheduler_svc.control.instances.sessions import STARTING, Sessions
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.timing.clock import ControlClock
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.errors import NoInstance
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.request import RequestState
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

CHECK_S = 0.1


class Watchdog:
    def __init__(
        self,
        scheduler: Scheduler,
        clock: ControlClock,
        lifecycle: RequestTable,
        sessions: Sessions,
        warm_ups: WarmUps,
        wakeup: Wakeup,
        *,
        orphan_timeout_s: float,
        configured: frozenset[str],
    ) -> None:
        """``configured``: models that the configuration names; they stay, whether an instance is left or not."""
        self._scheduler = scheduler
        self._clock = clock
        self._lifecycle = lifecycle
        self._sessions = sessions
        self._warm_ups = warm_ups
        self._wakeup = wakeup
        self._orphan_timeout_s = orphan_timeout_s
        self._configured = configured
        self._unserved_since: dict[str, float] = {}  # by model with requests waiting

    async def run(self) -> None:
        while True:
            await self._clock.sleep(CHECK_S)
            self.check()

    def check(self) -> None:
        self._sessions.check()
        self._warm_ups.check()
        for switch in self._scheduler.tick(self._clock.now()):
            log.info("policy %s -> %s: %s", switch.from_policy, switch.to_policy, switch.reason)
            self._wakeup.kick()
        self._end_orphans()
        self._scheduler.retire_models(keep=self._configured)

    def _end_orphans(self) -> None:
        """Requests whose model no instance has served for long end with a word, unless they asked to wait."""
        now = self._clock.now()
        unserved = {
            model for model, queue in self._scheduler.queues().items() if queue.waiting and not self._served(model)
        }
        self._unserved_since = {m: self._unserved_since.get(m, now) for m in unserved}
        late = {m for m, since in self._unserved_since.items() if now - since >= self._orphan_timeout_s}
        if not late:
            return
        for live in self._lifecycle:
            request = live.request
            if live.state is RequestState.QUEUED and request.model in late and not request.wait_for_instance:
                why = f"none has been ready for {self._orphan_timeout_s:.0f} s"
                self._lifecycle.end(live, NoInstance(request.model, why))

    def _served(self, model: str) -> bool:
        """Whether an instance takes its requests, or is on its way to."""
        hopeful = STARTING | {InstanceState.READY}
        return any(i.state in hopeful for i in self._scheduler.instances() if i.spec.model == model)
