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
    named = [labels.label("m", name, placed=True) for name in ("a", "b", "c", "a", "b")]
    assert named == ["a", "b", "(other)", "a", "b"]
    assert labels.label("another model", "a", placed=True) == "(other)"


def test_an_adapter_that_no_request_ran_with_takes_no_label() -> None:
    """Requests that wait for a first instance may name adapters that do not exist."""
    labels = AdapterLabels(limit=1)
    assert labels.label("m", "made up", placed=False) == "(other)"
    assert labels.label("m", "legal", placed=True) == "legal"
    assert labels.label("m", "legal", placed=False) == "legal"
