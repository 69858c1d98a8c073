"""Figures of the journal and of usage records, read when metrics are exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping

from sage_telemetry import catalogue
from sage_telemetry.instrument import Instrument
from sage_telemetry.meter import Labels
from scheduler_svc.control.journal.maintenance import JournalFigures, JournalMaintenance


class JournalReader:
    """Reads what the journal did, and whether it works."""

    def __init__(
        self, journal: JournalMaintenance | None = None, usage_counts: Callable[[], Mapping[str, int]] = dict
    ) -> None:
        """``usage_counts`` counts usage records by what became of them."""
        self._journal = journal
        self._usage_counts = usage_counts

    def add_to(self, values: MutableMapping[Instrument, list[tuple[Labels, float]]]) -> None:
        """Add the current figures to the values of all instruments."""
        journal = self._journal
        done = journal.figures if journal is not None else JournalFigures()
        writes = {"committed": done.writes, "refused": done.refused, "failed": done.failed}
        values[catalogue.JOURNAL_TROUBLE] = [((), float(journal is not None and bool(journal.trouble)))]
        values[catalogue.JOURNAL_WRITES] = [((result,), count) for result, count in writes.items()]
        values[catalogue.JOURNAL_COMMIT_TIME] = [((), done.commit_s)]
        values[catalogue.JOURNAL_COMMITS] = [((), done.commits)]
        records = {"written": 0, "dropped_queue_full": 0, "dropped_not_written": 0, **self._usage_counts()}
        values[catalogue.USAGE_RECORDS] = [((result,), count) for result, count in records.items()]
