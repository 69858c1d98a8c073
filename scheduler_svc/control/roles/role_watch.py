"""Changes roles between prefill and decode, again and again."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from sage_common.clock import Clock
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.control.roles.kept_roles import KeptRoles
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.role_change import Cause, RoleChange
from scheduler_svc.domain.roles.settings import RoleSettings
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


class RoleWatch:
    """Has the scheduler look at the pressures every ``interval_s``, and logs and counts the changes.

    The first look is once executors had time to come back: before that, a side would seem empty that is not.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        decisions: OperatorDecisions,
        kept: KeptRoles,
        wakeup: Wakeup,
        *,
        recovering: Callable[[], bool],
        first_look_at: float,
    ) -> None:
        """Look at nothing yet.

        ``recovering``: whether instances that an earlier scheduler saw may still come back.  ``first_look_at``: the
        earliest, seconds on the control clock.
        """
        self._scheduler = scheduler
        self._clock = clock
        self._decisions = decisions
        self._kept = kept
        self._wakeup = wakeup
        self._recovering = recovering
        self._first_look_at = first_look_at
        self.changes: Counter[tuple[str, InstanceRole, Cause]] = Counter()
        """Changes by model, new role and cause; of models that there are."""

    @property
    def settings(self) -> RoleSettings:
        """When instances change between prefill and decode."""
        return self._scheduler.settings.roles

    async def run(self) -> None:
        """Look at the pressures for ever; returns at once where roles are not automatic."""
        while self.settings.automatic:
            if self._clock.now() >= self._first_look_at and not self._recovering():
                self.look()
            await self._clock.sleep(self.settings.interval_s)

    def look(self) -> None:
        """Change what is due once, and have executors keep their roles for the next scheduler."""
        changed = self._scheduler.balance_roles(self._pinned(), self._clock.now())
        for each in changed:
            self._note(each)
        models = set(self._scheduler.models_with_instances())
        self.changes = Counter({key: n for key, n in self.changes.items() if key[0] in models})
        self._kept.tell()
        if changed:
            self._wakeup.notify()

    def _pinned(self) -> frozenset[str]:
        ids = (each.instance_id for each in self._scheduler.instances())
        return frozenset(each for each in ids if self._decisions.instance(each).role is not None)

    def _note(self, change: RoleChange) -> None:
        self.changes[change.model, change.role, change.cause] += 1
        log.info(
            "instance %s of %s: role %s -> %s: %s",
            *(change.instance_id, change.model, change.before.value, change.role.value, change.reason),
        )
