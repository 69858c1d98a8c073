"""Counts what happens.  Cheap enough for the event loop: a label set is looked up once and kept, then counting is an
addition and a histogram's record a bisection.

One thread writes, the event loop's; any thread may read.  A reader sees each number as it was at some moment, so the
figures of one page may be a few events apart.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sage_telemetry.instrument import Instrument, Kind

log = logging.getLogger(__name__)

LABEL_SETS_LIMIT = 4_096
"""Label sets of one instrument; what comes after them is counted together under ``OVERFLOW``."""
OVERFLOW = "(other)"

Labels = tuple[str, ...]
Observed = Mapping[Instrument, Sequence[tuple[Labels, float]]]
"""Values of observed instruments, by instrument and label set."""


class SourceBusy(Exception):
    """What is observed cannot be read now; it is left out of this export."""


class Count:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        self.value += amount


class Distribution:
    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # by bucket, the last one without a bound
        self.sum = 0.0

    def record(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram's state: counts by bucket, not cumulated."""

    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True, slots=True)
class Reading:
    """One instrument, all its label sets."""

    instrument: Instrument
    numbers: Sequence[tuple[Labels, float]] = ()
    buckets: Sequence[tuple[Labels, Buckets]] = ()


C = TypeVar("C", Count, Distribution)


class Labelled(Generic[C]):
    """One instrument's cells by label set."""

    def __init__(self, instrument: Instrument, make: Callable[[], C], limit: int) -> None:
        self.instrument = instrument
        self._make: Callable[[], C] = make
        self._limit = limit
        self._cells: dict[Labels, C] = {}
        if not instrument.labels:
            self._cells[()] = make()

    def of(self, *labels: str) -> C:
        """The cell of these label values, in the catalogue's order."""
        cell = self._cells.get(labels)
        return cell if cell is not None else self._new(labels)

    def begin(self, *labels: str) -> None:
        """Have these label values in readings before anything is counted: a rate needs a value to start from.

        Such beginnings take at most half of the label sets; beyond that they are left to the first count.
        """
        if labels not in self._cells and len(self._cells) < self._limit // 2:
            self._new(labels)

    def _new(self, labels: Labels) -> C:
        if len(labels) != len(self.instrument.labels):
            raise ValueError(f"{self.instrument.name} has labels {self.instrument.label_names}, not {labels}")
        if len(self._cells) >= self._limit:
            labels = (OVERFLOW,) * len(labels)
        return self._cells.setdefault(labels, self._make())

    def cells(self) -> list[tuple[Labels, C]]:
        return list(self._cells.items())


class Meter:
    """The instruments of one process.  Each is in every reading, also before anything was counted."""

    def __init__(self, instruments: Iterable[Instrument], *, label_sets_limit: int = LABEL_SETS_LIMIT) -> None:
        self._counters: dict[Instrument, Labelled[Count]] = {}
        self._histograms: dict[Instrument, Labelled[Distribution]] = {}
        self._observed: list[Instrument] = []
        self._sources: list[Callable[[], Observed]] = []
        self._broken: set[Callable[[], Observed]] = set()  # those that were told of, until they are well again
        for each in instruments:
            if each.observed:
                self._observed.append(each)
            elif each.kind is Kind.HISTOGRAM:
                self._histograms[each] = Labelled(each, _distribution(each), label_sets_limit)
            else:
                self._counters[each] = Labelled(each, Count, label_sets_limit)

    def counter(self, instrument: Instrument) -> Labelled[Count]:
        """Raises KeyError for an instrument this meter was not made for."""
        return self._counters[instrument]

    def histogram(self, instrument: Instrument) -> Labelled[Distribution]:
        """Raises KeyError for an instrument this meter was not made for."""
        return self._histograms[instrument]

    def observe(self, source: Callable[[], Observed]) -> None:
        """Have ``source`` called with every export, in the exporter's thread.

        It may raise SourceBusy.  Whatever it raises, everything else is exported without it.
        """
        self._sources.append(source)

    def read(self) -> list[Reading]:
        """All instruments as they are now."""
        values: dict[Instrument, Sequence[tuple[Labels, float]]] = {}
        for source in self._sources:
            values.update(self._ask(source))
        return [
            *(
                Reading(each, numbers=[(labels, cell.value) for labels, cell in labelled.cells()])
                for each, labelled in self._counters.items()
            ),
            *(
                Reading(each, buckets=[(labels, _buckets(cell)) for labels, cell in labelled.cells()])
                for each, labelled in self._histograms.items()
            ),
            *(Reading(each, numbers=values.get(each, ())) for each in self._observed),
        ]

    def _ask(self, source: Callable[[], Observed]) -> Observed:
        try:
            found = source()
        except SourceBusy as busy:
            log.warning("metrics: %s", busy)
            return {}
        except Exception:  # a defect in one reading must not take all others with it
            if source not in self._broken:  # once: exports come every few seconds
                self._broken.add(source)
                log.exception("metrics: a reading fails, and is left out until it is well again")
            return {}
        self._broken.discard(source)
        return found


def _distribution(instrument: Instrument) -> Callable[[], Distribution]:
    return lambda: Distribution(instrument.buckets)


def _buckets(cell: Distribution) -> Buckets:
    return Buckets(tuple(cell.counts), cell.sum)
