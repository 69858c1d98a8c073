"""The port through which instances are observed; the recording implements it.

Sessions reports events and does not wait.  An observer returns at once, raises nothing and changes nothing.  Times are
seconds on the control clock.
"""

from __future__ import annotations

from typing import Protocol

from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.load_report import LoadReport


class FleetObserver(Protocol):
    """Observes the instances of the fleet."""

    def heartbeat(self, instance: Instance, load: LoadReport, now: float) -> None:
        """Note a heartbeat; the instance's state, role and facts may have changed since the one before."""
        ...

    def engine_gone(self, instance: Instance, now: float) -> None:
        """Note that an instance's engine is gone: the instance is LOST or FAILED."""
        ...


class NullFleetObserver:
    """Implements FleetObserver and does nothing."""

    def heartbeat(self, instance: Instance, load: LoadReport, now: float) -> None:
        """Do nothing."""

    def engine_gone(self, instance: Instance, now: float) -> None:
        """Do nothing."""


NULL_FLEET_OBSERVER = NullFleetObserver()
