"""Defines an instrument, with its names in Prometheus and OpenTelemetry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    """The types of instrument that are used; the values are Prometheus's words for them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


UNIT_SUFFIX = {"s": "_seconds"}
"""What a unit adds to a Prometheus name.  Where another unit matters, the name itself ends with it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # compared by identity: a key of dictionaries
class Instrument:
    """One line of the catalogue.  Both exports derive their names from it, so they always agree."""

    name: str  # OpenTelemetry's, dotted
    kind: Kind
    unit: str  # UCUM: "s", "1", or an annotation like "{token}"
    help: str  # one sentence
    labels: Mapping[str, str] = field(default_factory=dict)  # name -> the values it can have, in words
    buckets: tuple[float, ...] = ()  # upper bounds, ascending, in ``unit``; histograms only
    observed: bool = False  # read by a source at each export, instead of counted at each event
    weighted: bool = False  # an observation stands for several equal values; histograms without labels only

    def __post_init__(self) -> None:
        """Check the fields against each other.  Raises ValueError."""
        if (self.kind is Kind.HISTOGRAM) != bool(self.buckets):
            raise ValueError(f"{self.name}: a histogram has buckets, nothing else has")
        if list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"{self.name}: buckets are not ascending")
        if self.kind is Kind.GAUGE and not self.observed:
            raise ValueError(f"{self.name}: a gauge is observed")
        if self.kind is Kind.HISTOGRAM and self.observed:
            raise ValueError(f"{self.name}: a histogram is counted, not observed")
        if self.weighted and (self.kind is not Kind.HISTOGRAM or self.labels):
            raise ValueError(f"{self.name}: only a histogram without labels is weighted")

    @property
    def prometheus_name(self) -> str:
        """The name in queries: with the suffix of unit and kind.  A histogram's series add _bucket, _sum and _count."""
        name = self.name.replace(".", "_") + UNIT_SUFFIX.get(self.unit, "")
        return f"{name}_total" if self.kind is Kind.COUNTER else name

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the labels, in the order in which their values are given."""
        return tuple(self.labels)
