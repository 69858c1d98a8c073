"""Lets modelled instances change between prefill and decode as the scheduler decides."""

from __future__ import annotations

from collections.abc import Callable

from sage_simulator.event_queue import EventQueue
from sage_simulator.modelled_fleet import ModelledFleet
from scheduler_svc.domain.role_change import RoleChange
from scheduler_svc.domain.scheduler import Scheduler


class AutomaticRoles:
    """Has the scheduler look at the pressures of both sides again and again, and proves the pairs that are new then."""

    def __init__(
        self, scheduler: Scheduler, events: EventQueue, fleet: ModelledFleet, changed: Callable[[], None]
    ) -> None:
        """Look at nothing yet.  ``changed``: called after a change, for a scheduling pass."""
        self._scheduler = scheduler
        self._events = events
        self._fleet = fleet
        self._changed = changed
        self._interval_s = scheduler.settings.roles.interval_s
        self.changes: list[RoleChange] = []

    def start(self) -> None:
        """Look from now on, every interval."""
        self._events.after(self._interval_s, self._look)

    def _look(self) -> None:
        changes = self._scheduler.balance_roles(frozenset(), self._events.now)
        if changes:
            self.changes += changes
            self._fleet.prove_pairs()
            self._changed()
        self._events.after(self._interval_s, self._look)
