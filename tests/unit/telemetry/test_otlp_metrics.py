"""What is pushed is what is counted: kinds, values and buckets as OTLP has them."""

from __future__ import annotations

from opentelemetry.sdk.metrics.export import Gauge, Histogram, Metric, Sum

from sage_telemetry.instrument import Instrument, Kind
from sage_telemetry.meter import Meter
from sage_telemetry.otlp_metrics import otlp_metric

CALLS = Instrument(name="t.calls", kind=Kind.COUNTER, unit="{call}", help="Calls.", labels={"who": "x", "how": "x"})
TOOK = Instrument(name="t.took", kind=Kind.HISTOGRAM, unit="s", help="Time.", labels={"of": "x"}, buckets=(0.1, 1, 10))
STEPS = Instrument(name="t.steps", kind=Kind.HISTOGRAM, unit="s", help="Steps.", buckets=(0.1, 1), weighted=True)
DEPTH = Instrument(name="t.depth", kind=Kind.GAUGE, unit="{call}", help="Depth.", labels={"of": "x"}, observed=True)
STARTED_NS, NOW_NS = 5, 9


def pushed(meter: Meter, instrument: Instrument) -> Metric:
    made = otlp_metric(instrument, dict(meter.read())[instrument], STARTED_NS, NOW_NS)
    assert (made.name, made.description, made.unit) == (instrument.name, instrument.help, instrument.unit)
    return made


def test_a_counter_is_a_monotonic_sum() -> None:
    meter = Meter((CALLS,))
    meter.counter(CALLS).labels("a", "b").inc(2)
    data = pushed(meter, CALLS).data
    assert isinstance(data, Sum)
    assert data.is_monotonic
    (point,) = data.data_points
    assert (point.attributes, point.value) == ({"who": "a", "how": "b"}, 2.0)
    assert (point.start_time_unix_nano, point.time_unix_nano) == (STARTED_NS, NOW_NS)


def test_a_histograms_buckets_are_not_cumulated_and_label_sets_stay_apart() -> None:
    meter = Meter((TOOK,))
    for value in (0.1, 0.5, 1, 100):
        meter.histogram(TOOK).labels("a").observe(value)
    meter.histogram(TOOK).labels("b").observe(5)
    data = pushed(meter, TOOK).data
    assert isinstance(data, Histogram)
    assert [(p.attributes, p.count, p.sum, list(p.bucket_counts), p.explicit_bounds) for p in data.data_points] == [
        ({"of": "a"}, 4, 101.6, [1, 2, 0, 1], (0.1, 1, 10)),
        ({"of": "b"}, 1, 5.0, [0, 0, 1, 0], (0.1, 1, 10)),
    ]


def test_a_histogram_without_labels_is_there_at_zero() -> None:
    data = pushed(Meter((STEPS,)), STEPS).data
    assert isinstance(data, Histogram)
    (point,) = data.data_points
    assert (point.attributes, point.count, point.sum, list(point.bucket_counts)) == ({}, 0, 0.0, [0, 0, 0])


def test_what_is_observed_is_a_gauge() -> None:
    meter = Meter((DEPTH,))
    meter.observe(lambda: {DEPTH: [(("x",), 4)]})
    data = pushed(meter, DEPTH).data
    assert isinstance(data, Gauge)
    assert [(point.attributes, point.value) for point in data.data_points] == [({"of": "x"}, 4.0)]
