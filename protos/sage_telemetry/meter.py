"""The catalogue's instruments in one process: prometheus_client's metrics, and sources that are read at each export.

Only the event loop's thread counts; any thread may read.  A reader sees each number as it was at some moment, so the
figures of one page may be a few events apart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import Counter, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sage_telemetry.instrument import Instrument, Kind
from sage_telemetry.label_sets import LABEL_SETS_LIMIT, LabelSets
from sage_telemetry.weighted_histogram import WeightedHistogram

log = logging.getLogger(__name__)

Labels = tuple[str, ...]
"""Label values, in the catalogue's order."""
Observed = Mapping[Instrument, Sequence[tuple[Labels, float]]]
"""Values of observed instruments, by instrument and label values."""


class SourceBusy(Exception):
    """A source cannot be read now; its instruments are left out of this export."""


class Meter(Collector):
    """The instruments of one process.  Each is in every reading, even before anything was counted."""

    def __init__(self, instruments: Iterable[Instrument], *, label_sets_limit: int = LABEL_SETS_LIMIT) -> None:
        """Make the metrics of ``instruments``.  ``label_sets_limit``: bound of each metric's label sets."""
        self._instruments = tuple(instruments)
        self._counters: dict[Instrument, LabelSets[Counter]] = {}
        self._histograms: dict[Instrument, LabelSets[Histogram]] = {}
        self._weighted: dict[Instrument, WeightedHistogram] = {}
        self._metrics: dict[Instrument, Collector] = {}  # all of the three above
        self._sources: list[Callable[[], Observed]] = []
        self._broken: set[Callable[[], Observed]] = set()  # sources whose failure was logged, until they work again
        for each in self._instruments:
            name, names = each.prometheus_name, each.label_names
            if each.weighted:
                self._metrics[each] = self._weighted[each] = WeightedHistogram(name, each.help, each.buckets)
            elif each.kind is Kind.HISTOGRAM:
                histogram = Histogram(name, each.help, names, registry=None, buckets=each.buckets)
                self._metrics[each], self._histograms[each] = histogram, LabelSets(histogram, names, label_sets_limit)
            elif not each.observed:
                counter = Counter(name, each.help, names, registry=None)
                self._metrics[each], self._counters[each] = counter, LabelSets(counter, names, label_sets_limit)

    def counter(self, instrument: Instrument) -> LabelSets[Counter]:
        """Return the counter of ``instrument``.  Raises KeyError for one that this meter has no counter of."""
        return self._counters[instrument]

    def histogram(self, instrument: Instrument) -> LabelSets[Histogram]:
        """Return the histogram of ``instrument``.  Raises KeyError for one that this meter has no histogram of."""
        return self._histograms[instrument]

    def weighted(self, instrument: Instrument) -> WeightedHistogram:
        """Return the histogram of a weighted ``instrument``.  Raises KeyError for any other."""
        return self._weighted[instrument]

    def observe(self, source: Callable[[], Observed]) -> None:
        """Call ``source`` with every export, in the exporter's thread.

        It may raise SourceBusy.  If it raises anything, the other instruments are exported without it.
        """
        self._sources.append(source)

    def read(self) -> list[tuple[Instrument, Metric]]:
        """Return every instrument with its family of samples as they are now, in the catalogue's order."""
        values: dict[Instrument, Sequence[tuple[Labels, float]]] = {}
        for source in self._sources:
            values.update(self._read_source(source))
        return [
            (each, _observed(each, values.get(each, ())) if each.observed else _counted(self._metrics[each]))
            for each in self._instruments
        ]

    def collect(self) -> Iterator[Metric]:
        """Yield the families of ``read``, for a registry of prometheus_client's."""
        for _, family in self.read():
            yield family

    def _read_source(self, source: Callable[[], Observed]) -> Observed:
        try:
            found = source()
        except SourceBusy as busy:
            log.warning("metrics: %s", busy)
            return {}
        except Exception:  # a defect in one source must not stop the others
            if source not in self._broken:  # once: exports come every few seconds
                self._broken.add(source)
                log.exception("metrics: a source fails; its instruments are left out until it works again")
            return {}
        self._broken.discard(source)
        return found


def _counted(metric: Collector) -> Metric:
    """Return the metric's family without the series of when each child was made, which prometheus_client adds."""
    (family,) = metric.collect()
    family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return family


def _observed(instrument: Instrument, values: Sequence[tuple[Labels, float]]) -> Metric:
    make = CounterMetricFamily if instrument.kind is Kind.COUNTER else GaugeMetricFamily
    family: CounterMetricFamily | GaugeMetricFamily = make(
        instrument.prometheus_name, instrument.help, labels=instrument.label_names
    )
    for labels, value in values:
        family.add_metric(labels, value)
    return family
