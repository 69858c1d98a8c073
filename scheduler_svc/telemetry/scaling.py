"""Figures of desired instances, read when metrics are exported."""

from __future__ import annotations

from collections.abc import MutableMapping

from sage_telemetry import catalogue
from sage_telemetry.instrument import Instrument
from sage_telemetry.meter import Labels
from scheduler_svc.control.scaling.scaling_watch import ScalingWatch


class ScalingReader:
    """Reads the desired numbers; there are none where scaling is off."""

    def __init__(self, watch: ScalingWatch) -> None:
        self._watch = watch

    def add_to(self, values: MutableMapping[Instrument, list[tuple[Labels, float]]]) -> None:
        """Add the current figures to the values of all instruments."""
        desired = self._watch.desired
        values[catalogue.DESIRED_INSTANCES] = [((d.model, d.role.value), d.desired) for d in desired]
        values[catalogue.SCALING_LOAD] = [
            ((d.model, d.role.value, when), load)
            for d in desired
            for when, load in (("now", d.load), ("forecast", d.forecast))
        ]
        values[catalogue.WARM_UP] = [((d.model, d.role.value), d.warm_up_s) for d in desired]
        values[catalogue.SCALING_CHANGES] = [
            ((d.model, d.role.value, direction), self._watch.changes[d.model, d.role, direction])
            for d in desired
            for direction in ("up", "down")
        ]
