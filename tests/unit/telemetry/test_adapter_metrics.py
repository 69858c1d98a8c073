"""What is counted of LoRA adapters: how loads end at an executor, and requests by adapter in a bounded label."""

from __future__ import annotations

from executor_svc.telemetry.adapter_metrics import AdapterMetrics
from sage_telemetry import catalogue
from sage_telemetry.instrument import Instrument
from sage_telemetry.meter import Meter
from scheduler_svc.telemetry.adapter_label import AdapterLabels


def counted(meter: Meter, instrument: Instrument, suffix: str) -> dict[tuple[str, ...], float]:
    family = dict(meter.read())[instrument]
    return {tuple(each.labels.values()): each.value for each in family.samples if each.name.endswith(suffix)}


def test_loads_count_by_how_they_ended_and_the_time_of_those_that_worked() -> None:
    meter = Meter(catalogue.EXECUTOR)
    metrics = AdapterMetrics(meter)
    metrics.loaded("loaded", 2.0)
    metrics.loaded("timed_out", 600.0)
    metrics.unloaded("unloaded")
    assert counted(meter, catalogue.ADAPTER_LOADS, "_total") == {("loaded",): 1, ("timed_out",): 1}
    assert counted(meter, catalogue.ADAPTER_LOAD_DURATION, "_sum") == {(): 2.0}
    assert counted(meter, catalogue.ADAPTER_UNLOADS, "_total") == {("unloaded",): 1}


def test_the_first_adapters_have_labels_and_all_others_share_one() -> None:
    labels = AdapterLabels(limit=2)
    assert [labels.label("m", name) for name in ("a", "b", "c", "a", "b")] == ["a", "b", "(other)", "a", "b"]
    assert labels.label("another model", "a") == "(other)"
