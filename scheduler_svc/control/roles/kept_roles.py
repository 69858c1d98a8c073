"""The roles of instances beyond a session and a scheduler: those of operators, and those that executors keep."""

from __future__ import annotations

import logging

from sage_common.clock import Clock
from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.control.attempts.executor_links import ExecutorLinks
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.control.roles.kept_role import KeptRole
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.role_change import RoleChange
from scheduler_svc.domain.roles.sides import SIDES
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


class KeptRoles:
    """What each executor keeps, as far as the scheduler knows.  Bounded by the instances there are."""

    def __init__(self, scheduler: Scheduler, clock: Clock, links: ExecutorLinks, decisions: OperatorDecisions) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._links = links
        self._decisions = decisions
        self._kept: dict[str, RoleChange | None] = {}  # by instance, of executors that keep roles

    def registered(
        self, instance: Instance, kept: KeptRole | None, link: ExecutorLink, *, known: bool, keeps: bool
    ) -> None:
        """Give an instance that registers the role that an operator gave it, or that its executor kept.

        ``known``: this scheduler knew it before, so its own view counts.  ``keeps``: the executor keeps roles.  What
        does not count is taken back at the executor, or a later scheduler would give it.
        """
        self._give_decided(instance)
        if not keeps:
            self._kept.pop(instance.instance_id, None)
            return
        if kept is not None and not known and self._may_have(instance, kept):
            self._take_over(instance, kept)
        change = instance.role_change
        if kept is not None and (change is None or known):
            link.keep_role(change, self._age_s(change))
        self._kept[instance.instance_id] = change if kept is not None else None

    def tell(self) -> None:
        """Tell executors what changed since they were told last; those without a session are told later."""
        instances = self._scheduler.instances()
        self._kept = {i.instance_id: self._kept[i.instance_id] for i in instances if i.instance_id in self._kept}
        for instance in instances:
            change = instance.role_change
            if self._kept.get(instance.instance_id, change) is change:
                continue
            link = self._links.find(instance.instance_id)
            if link is not None:
                link.keep_role(change, self._age_s(change))
                self._kept[instance.instance_id] = change

    def _give_decided(self, instance: Instance) -> None:
        """Give an instance the role that an operator gave it under an earlier scheduler, if it can have it."""
        role = self._decisions.instance(instance.instance_id).role
        if role is not None and role is not instance.role and role.embeds is instance.spec.role.embeds:
            self._scheduler.set_role(instance.instance_id, role)

    def _may_have(self, instance: Instance, kept: KeptRole) -> bool:
        """Whether roles are automatic, no operator gave this one's, and its executor was started for a side."""
        return (
            self._scheduler.settings.roles.automatic
            and self._decisions.instance(instance.instance_id).role is None
            and {instance.spec.role, kept.role, kept.previous} <= SIDES
        )

    def _take_over(self, instance: Instance, kept: KeptRole) -> None:
        change = RoleChange(
            model=instance.spec.model,
            instance_id=instance.instance_id,
            before=kept.previous,
            role=kept.role,
            cause=kept.cause,
            reason=kept.reason,
            at=self._clock.now() - kept.age_s,
        )
        self._scheduler.keep_role(change)
        log.info("instance %s keeps the role %s of an earlier scheduler", instance.instance_id, kept.role.value)

    def _age_s(self, change: RoleChange | None) -> float:
        return self._clock.now() - change.at if change is not None else 0.0
