"""What an instrument is, and what Prometheus and OpenTelemetry call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


UNIT_SUFFIX = {"s": "_seconds"}
"""What a unit adds to a Prometheus name.  Where another unit matters, the name itself ends with it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # equal to itself only: a key of dictionaries
class Instrument:
    """One line of the catalogue.  Its names are derived, so both exports always agree."""

    name: str  # OpenTelemetry's, dotted
    kind: Kind
    unit: str  # UCUM: "s", "1", or an annotation like "{token}"
    help: str
    labels: Mapping[str, str] = field(default_factory=dict)  # name -> the values it can have
    buckets: tuple[float, ...] = ()  # upper bounds, ascending, in ``unit``; histograms only
    observed: bool = False  # read when it is exported, instead of being counted as things happen

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if (self.kind is Kind.HISTOGRAM) != bool(self.buckets):
            raise ValueError(f"{self.name}: a histogram has buckets, nothing else has")
        if list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"{self.name}: buckets are not ascending")

    @property
    def prometheus_name(self) -> str:
        """As a query names it; a histogram's series add _bucket, _sum and _count."""
        name = self.name.replace(".", "_") + UNIT_SUFFIX.get(self.unit, "")
        return f"{name}_total" if self.kind is Kind.COUNTER else name

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(self.labels)
