"""A reading of the meter as CloudWatch takes it: what was counted since it was told last, and values as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf, isfinite
from typing import Any

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from sage_telemetry.instrument import Instrument, Kind

VALUE_LIMIT = 250
"""Characters of a dimension's value."""

_UNITS = {"s": "Seconds", "By": "Bytes", "1": "None", "%": "Percent"}

Key = tuple[str, tuple[tuple[str, str], ...], float]
"""A counted figure: metric, labels, and a bucket's upper bound (0 for a counter)."""
_Dimensions = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Datum:
    """One metric's values under one set of dimensions, and the totals that count as told once it is delivered."""

    body: dict[str, Any]  # MetricDatum of PutMetricData
    totals: dict[Key, float] = field(default_factory=dict)


class CloudWatchData:
    """Turns readings into data, and remembers which totals were delivered."""

    def __init__(self, fixed: Mapping[str, str], dimensions: Sequence[str], metrics: Sequence[str]) -> None:
        """Tell the metrics whose names begin with one of ``metrics``; empty: all.

        ``fixed``: dimensions that all of them have.  ``dimensions``: labels that become dimensions.
        """
        self._fixed = fixed
        self._dimensions = tuple(dimensions)
        self._metrics = tuple(metrics)
        self._told: dict[Key, float] = {}

    def of(self, readings: Sequence[tuple[Instrument, Family]], now: datetime) -> list[Datum]:
        """Return the data of a reading.  A counter or histogram that did not grow has none."""
        found: list[Datum] = []
        for instrument, family in readings:
            if self._metrics and not instrument.name.startswith(self._metrics):
                continue
            for dimensions, samples in self._by_dimensions(family.samples).items():
                datum = self._datum(instrument, samples)
                if datum is not None:
                    datum.body |= {
                        "MetricName": instrument.name,
                        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions],
                        "Timestamp": now,
                        "Unit": _UNITS.get(instrument.unit, "Count"),
                    }
                    found.append(datum)
        return found

    def delivered(self, data: Sequence[Datum]) -> None:
        """Count the totals of these data as told."""
        for each in data:
            self._told |= each.totals

    def _by_dimensions(self, samples: Sequence[Sample]) -> dict[_Dimensions, list[Sample]]:
        found: dict[_Dimensions, list[Sample]] = {}
        for sample in samples:
            own = {name: sample.labels[name] for name in self._dimensions if sample.labels.get(name)}
            dimensions = tuple((name, _shown(value)) for name, value in ({**self._fixed, **own}).items())
            found.setdefault(dimensions, []).append(sample)
        return found

    def _datum(self, instrument: Instrument, samples: Sequence[Sample]) -> Datum | None:
        if instrument.kind is Kind.GAUGE:
            return _as_they_are([each.value for each in samples if isfinite(each.value)])
        if instrument.kind is Kind.COUNTER:
            return self._counted(instrument, samples)
        return self._distributed(instrument, samples)

    def _counted(self, instrument: Instrument, samples: Sequence[Sample]) -> Datum | None:
        totals = {_key(instrument, each): each.value for each in samples}
        grown = sum(total - self._told.get(key, 0.0) for key, total in totals.items())
        return Datum({"Value": grown}, totals) if grown > 0 else None

    def _distributed(self, instrument: Instrument, samples: Sequence[Sample]) -> Datum | None:
        """Count each new observation as the middle of its bucket; those above all buckets as the last bound."""
        totals: dict[Key, float] = {}
        new: dict[float, float] = {}
        for key, total, value in _buckets(instrument, samples):
            totals[key] = total
            grown = total - self._told.get(key, 0.0)
            if grown > 0:
                new[value] = new.get(value, 0.0) + grown
        return Datum({"Values": list(new), "Counts": list(new.values())}, totals) if new else None


def _as_they_are(values: Sequence[float]) -> Datum | None:
    if not values:
        return None
    if len(values) == 1:
        return Datum({"Value": values[0]})
    statistics = {"SampleCount": len(values), "Sum": sum(values), "Minimum": min(values), "Maximum": max(values)}
    return Datum({"StatisticValues": statistics})


def _buckets(instrument: Instrument, samples: Sequence[Sample]) -> Iterator[tuple[Key, float, float]]:
    """Yield each bucket's key, its own total and the value that stands for it.

    A child's buckets stand one after the other, cumulated, and begin with the lowest.
    """
    below, bound_below = 0.0, 0.0
    for sample in samples:
        if not sample.name.endswith("_bucket"):
            below, bound_below = 0.0, 0.0
            continue
        bound = float(sample.labels["le"])
        value = bound_below if bound == inf else (bound_below + bound) / 2
        yield _key(instrument, sample, bound), sample.value - below, value
        below, bound_below = sample.value, bound


def _key(instrument: Instrument, sample: Sample, bound: float = 0.0) -> Key:
    return instrument.name, tuple(sorted((n, v) for n, v in sample.labels.items() if n != "le")), bound


def _shown(value: str) -> str:
    """Return a dimension's value as CloudWatch takes it: ASCII, not empty."""
    return value.encode("ascii", "replace").decode()[:VALUE_LIMIT].strip() or "-"
