"""Figures of LoRA adapters on instances, read when metrics are exported."""

from __future__ import annotations

from collections.abc import MutableMapping

from sage_telemetry import catalogue
from sage_telemetry.instrument import Instrument
from sage_telemetry.meter import Labels
from scheduler_svc.control.adapters.adapters import Adapters
from scheduler_svc.control.adapters.instance_adapters import AdapterState

COUNTED = (AdapterState.LOADING, AdapterState.LOADED, AdapterState.UNLOADING, AdapterState.FAILED)


class AdapterReader:
    """Reads how many adapters each instance has, by state; an instance without any is left out."""

    def __init__(self, adapters: Adapters) -> None:
        self._adapters = adapters

    def add_to(self, values: MutableMapping[Instrument, list[tuple[Labels, float]]]) -> None:
        """Add the current figures to the values of all instruments."""
        values[catalogue.INSTANCE_ADAPTERS] = [
            ((instance_id, model, state.value), counts[state])
            for (instance_id, model), counts in self._adapters.counts().items()
            for state in COUNTED
        ]
