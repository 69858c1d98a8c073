"""Figures of batches, read when metrics are exported."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

from sage_telemetry import catalogue
from sage_telemetry.instrument import Instrument
from sage_telemetry.meter import Labels
from scheduler_svc.control.batches.figures import NO_BATCHES, BatchFigures


class BatchReader:
    """Reads what batches did and do."""

    def __init__(self, figures: Callable[[], BatchFigures] = lambda: NO_BATCHES) -> None:
        self._figures = figures

    def add_to(self, values: MutableMapping[Instrument, list[tuple[Labels, float]]]) -> None:
        """Add the current figures to the values of all instruments."""
        found = self._figures()
        values[catalogue.BATCHES_UNFINISHED] = [((), found.unfinished)]
        values[catalogue.BATCH_LINES_IN_FLIGHT] = [((), found.in_flight)]
        values[catalogue.BATCH_LINES] = [(("completed",), found.completed), (("failed",), found.failed)]
        values[catalogue.BATCH_RETRIES] = [((), found.retries)]
        values[catalogue.BATCH_BYTES] = [((), found.bytes)]
