"""Figures of automatic roles, read when metrics are exported."""

from __future__ import annotations

from collections.abc import MutableMapping

from sage_telemetry import catalogue
from sage_telemetry.instrument import Instrument
from sage_telemetry.meter import Labels
from scheduler_svc.control.roles.role_watch import RoleWatch
from scheduler_svc.domain.scheduler import Scheduler


class RoleReader:
    """Reads the pressures of both sides and the changes; there are none where roles are not automatic."""

    def __init__(self, watch: RoleWatch, scheduler: Scheduler) -> None:
        self._watch = watch
        self._scheduler = scheduler

    def add_to(self, values: MutableMapping[Instrument, list[tuple[Labels, float]]]) -> None:
        """Add the current figures to the values of all instruments."""
        values[catalogue.ROLE_PRESSURE] = [
            ((model, side.name), side.pressure) for model, sides in self._scheduler.sides.items() for side in sides
        ]
        values[catalogue.ROLE_CHANGES] = [
            ((model, role.value, cause.value), count) for (model, role, cause), count in self._watch.changes.items()
        ]
