"""Starts and drains modelled instances as the scheduler desires."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sage_simulator.event_queue import EventQueue
from sage_simulator.fleet_spec import InstanceModel
from sage_simulator.modelled_fleet import ModelledFleet
from sage_simulator.simulation_settings import SimulationSettings
from scheduler_svc.domain.scaling.desired_instances import DesiredInstances
from scheduler_svc.domain.scheduler import Scheduler


class Autoscaler:
    """Does what a fleet's controller does: follows the desired numbers, and lets instances go by drains only.

    What it starts is like the first instance of the same model and role, and is READY after ``warm_up_s``.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        events: EventQueue,
        fleet: ModelledFleet,
        kinds: Sequence[InstanceModel],
        settings: SimulationSettings,
    ) -> None:
        """``kinds``: instances that may be started."""
        self._scheduler = scheduler
        self._events = events
        self._fleet = fleet
        self._kinds = kinds
        self._warm_up_s = settings.warm_up_s
        self._interval_s = settings.scheduler.scaling.interval_s

    def start(self) -> None:
        """Look at the load from now on, every interval."""
        self._events.after(self._interval_s, self._look)

    def _look(self) -> None:
        for desired in self._scheduler.scale({}, self._events.now):
            self._follow(desired)
        self._events.after(self._interval_s, self._look)

    def _follow(self, desired: DesiredInstances) -> None:
        more = desired.desired - desired.ready - desired.starting
        for _ in range(more):
            self._fleet.launch(self._kind(desired), self._warm_up_s)
        up = [each for each in desired.remove_first if self._fleet.is_up(each)]
        for instance_id in up[: max(0, -more)]:
            self._fleet.drain(instance_id)

    def _kind(self, desired: DesiredInstances) -> InstanceModel:
        alike = [k for k in self._kinds if k.scaled_as is desired.role and k.model in ("", desired.model)]
        if alike:
            return replace(alike[0], model=desired.model)
        return replace(self._kinds[0], model=desired.model, role=desired.role)
