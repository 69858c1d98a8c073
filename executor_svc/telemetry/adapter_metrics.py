"""The metrics of LoRA adapters that are added while the engine runs."""

from __future__ import annotations

from sage_telemetry import catalogue
from sage_telemetry.meter import Meter


class AdapterMetrics:
    """Counts adapters that were loaded and unloaded, by how that ended."""

    def __init__(self, meter: Meter) -> None:
        self._loads = meter.counter(catalogue.ADAPTER_LOADS)
        self._duration = meter.histogram(catalogue.ADAPTER_LOAD_DURATION).labels()
        self._unloads = meter.counter(catalogue.ADAPTER_UNLOADS)

    def loaded(self, result: str, took_s: float) -> None:
        """Count a load that ended, and record the seconds that a successful one took."""
        self._loads.labels(result).inc()
        if result == "loaded":
            self._duration.observe(took_s)

    def unloaded(self, result: str) -> None:
        """Count an adapter that was unloaded, or could not be."""
        self._unloads.labels(result).inc()
