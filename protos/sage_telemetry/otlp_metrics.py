"""Families of prometheus_client's as the OpenTelemetry SDK's metrics, which its exporter sends."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from sage_telemetry.instrument import Instrument, Kind

_CUMULATIVE = AggregationTemporality.CUMULATIVE


def otlp_metric(instrument: Instrument, family: Family, started_ns: int, now_ns: int) -> Metric:
    """Return ``family``, the reading of ``instrument``, under OpenTelemetry's name.

    ``started_ns``, ``now_ns``: since 1970; the values were counted from the one to the other.
    """
    data: Sum | Gauge | Histogram
    if instrument.kind is Kind.HISTOGRAM:
        data = Histogram(list(_distributions(instrument, family, started_ns, now_ns)), _CUMULATIVE)
    else:
        numbers = [NumberDataPoint(each.labels, started_ns, now_ns, float(each.value)) for each in family.samples]
        data = Sum(numbers, _CUMULATIVE, is_monotonic=True) if instrument.kind is Kind.COUNTER else Gauge(numbers)
    return Metric(name=instrument.name, description=instrument.help, unit=instrument.unit, data=data)


def _distributions(
    instrument: Instrument, family: Family, started_ns: int, now_ns: int
) -> Iterator[HistogramDataPoint]:
    for labels, samples in groupby(family.samples, key=_own_labels):  # a child's samples stand one after the other
        found = list(samples)
        cumulated = [int(each.value) for each in found if each.name.endswith("_bucket")]
        (total,) = (each.value for each in found if each.name.endswith("_sum"))
        yield HistogramDataPoint(
            attributes=labels,
            start_time_unix_nano=started_ns,
            time_unix_nano=now_ns,
            count=cumulated[-1],
            sum=float(total),
            bucket_counts=[upper - lower for lower, upper in pairwise((0, *cumulated))],
            explicit_bounds=instrument.buckets,
            min=None,  # type: ignore[arg-type]  # optional in OTLP, and left out
            max=None,  # type: ignore[arg-type]
        )


def _own_labels(sample: Sample) -> dict[str, str]:
    """Return the labels that the catalogue names: all but the bucket's upper bound."""
    return {name: value for name, value in sample.labels.items() if name != "le"}
