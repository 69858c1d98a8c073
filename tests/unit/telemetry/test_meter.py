"""Counting, its bound, and how a page writes it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sage_telemetry.instrument import Instrument, Kind
from sage_telemetry.label_sets import OVERFLOW
from sage_telemetry.loop_source import LoopSource
from sage_telemetry.meter import Meter, Observed, SourceBusy

CALLS = Instrument(name="t.calls", kind=Kind.COUNTER, unit="{call}", help="Calls.", labels={"who": "anyone"})
TOOK = Instrument(name="t.took", kind=Kind.HISTOGRAM, unit="s", help="Time.", buckets=(0.1, 1, 10))
STEPS = Instrument(name="t.steps", kind=Kind.HISTOGRAM, unit="s", help="Steps.", buckets=(0.1, 1, 10), weighted=True)
DEPTH = Instrument(name="t.depth", kind=Kind.GAUGE, unit="{call}", help="Depth.", labels={"of": "x"}, observed=True)


@pytest.fixture
def meter() -> Meter:
    return Meter((CALLS, TOOK, STEPS, DEPTH), label_sets_limit=3)


def text(meter: Meter) -> str:
    registry = CollectorRegistry()
    registry.register(meter)
    return generate_latest(registry).decode()


def counted(meter: Meter) -> dict[str, float]:
    """CALLS by its label's value."""
    return {sample.labels["who"]: sample.value for sample in dict(meter.read())[CALLS].samples}


def test_names_carry_the_unit_and_counters_their_suffix() -> None:
    assert [each.prometheus_name for each in (CALLS, TOOK, DEPTH)] == ["t_calls_total", "t_took_seconds", "t_depth"]


def test_an_instrument_is_on_the_page_before_anything_happened(meter: Meter) -> None:
    families = {family.name for family in text_string_to_metric_families(text(meter))}
    assert families == {"t_calls", "t_took_seconds", "t_steps_seconds", "t_depth"}


@pytest.mark.parametrize("name", ["t_took_seconds", "t_steps_seconds"])
def test_a_value_on_a_bound_belongs_to_that_bucket(meter: Meter, name: str) -> None:
    for value in (0.1, 0.5, 1, 100):
        meter.histogram(TOOK).labels().observe(value)
        meter.weighted(STEPS).observe(value)
    assert [line for line in text(meter).splitlines() if line.startswith(name)] == [
        f'{name}_bucket{{le="0.1"}} 1.0',
        f'{name}_bucket{{le="1.0"}} 3.0',
        f'{name}_bucket{{le="10.0"}} 3.0',
        f'{name}_bucket{{le="+Inf"}} 4.0',
        f"{name}_count 4.0",
        f"{name}_sum 101.6",
    ]


def test_an_observation_may_stand_for_several(meter: Meter) -> None:
    meter.weighted(STEPS).observe(0.5, 8)
    assert "t_steps_seconds_count 8.0" in text(meter)
    assert "t_steps_seconds_sum 4.0" in text(meter)


def test_no_series_tells_when_a_child_was_made(meter: Meter) -> None:
    meter.counter(CALLS).labels("a").inc()
    assert "_created" not in text(meter)


def test_label_sets_beyond_the_bound_are_counted_together(meter: Meter) -> None:
    for name in "abcdefg":
        meter.counter(CALLS).labels(name).inc()
    meter.counter(CALLS).labels("a").inc()
    assert counted(meter) == {"a": 2, "b": 1, "c": 1, OVERFLOW: 4}


def test_a_label_set_may_begin_at_zero_and_loses_nothing_by_it(meter: Meter) -> None:
    calls = meter.counter(CALLS)
    calls.begin("a")
    assert 't_calls_total{who="a"} 0.0' in text(meter)
    calls.labels("a").inc()
    calls.begin("a")
    assert 't_calls_total{who="a"} 1.0' in text(meter)


def test_beginnings_take_at_most_half_of_the_label_sets() -> None:
    meter = Meter((CALLS,), label_sets_limit=4)
    calls = meter.counter(CALLS)
    for name in "abc":
        calls.begin(name)
    for name in "xy":
        calls.labels(name).inc()
    assert counted(meter) == {"a": 0, "b": 0, "x": 1, "y": 1}


def test_labels_must_be_those_of_the_catalogue(meter: Meter) -> None:
    with pytest.raises(ValueError, match="the labels are"):
        meter.counter(CALLS).labels("a", "b")


def test_what_is_observed_is_read_anew_and_leaves_when_it_is_gone(meter: Meter) -> None:
    values: list[tuple[tuple[str, ...], float]] = [(("x",), 4)]
    meter.observe(lambda: {DEPTH: values})
    assert 't_depth{of="x"} 4.0' in text(meter)
    values.clear()
    assert "t_depth{" not in text(meter)


def test_a_source_that_is_busy_is_left_out_and_everything_else_stays(
    meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    def busy() -> Observed:
        raise SourceBusy("not now")

    meter.observe(busy)
    meter.counter(CALLS).labels("a").inc()
    assert 't_calls_total{who="a"} 1.0' in text(meter)
    assert "not now" in caplog.text


def test_a_source_that_fails_takes_nothing_with_it_and_is_told_of_once(
    meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [True, True, False, True]

    def fails() -> Observed:
        if broken.pop(0):
            raise RuntimeError("a defect")
        return {}

    meter.observe(fails)
    meter.observe(lambda: {DEPTH: [(("x",), 4)]})
    for told in (1, 1, 1, 2):
        assert 't_depth{of="x"} 4.0' in text(meter)
        assert len([r for r in caplog.records if "a source fails" in r.message]) == told


async def test_the_loop_reads_for_other_threads() -> None:
    readers: list[int] = []

    def read() -> Observed:
        readers.append(threading.get_ident())
        return {DEPTH: [(("x",), 1)]}

    source = LoopSource(read)
    assert await asyncio.to_thread(source) == {DEPTH: [(("x",), 1)]}
    source()
    assert readers == [threading.get_ident()] * 2


async def test_scrapers_share_a_reading_while_it_is_fresh() -> None:
    readings: list[int] = []

    def read() -> Observed:
        readings.append(len(readings))
        return {DEPTH: [(("x",), len(readings))]}

    shared = LoopSource(read, fresh_s=3_600)
    found = await asyncio.gather(*(asyncio.to_thread(shared) for _ in range(8)))
    assert found == [{DEPTH: [(("x",), 1)]}] * 8
    assert len(readings) == 1
    anew = LoopSource(read, fresh_s=0.0)
    await asyncio.to_thread(anew)
    await asyncio.to_thread(anew)
    assert len(readings) == 3


async def test_a_reading_nobody_waits_for_any_more_is_not_made() -> None:
    readings: list[int] = []

    def read() -> Observed:
        readings.append(1)
        return {}

    source = LoopSource(read, timeout_s=0.05)

    def export() -> None:
        with pytest.raises(SourceBusy):
            source()

    thread = threading.Thread(target=export)
    thread.start()
    thread.join(5)  # the loop does nothing else meanwhile
    await asyncio.sleep(0)
    assert not thread.is_alive()
    assert readings == []


async def test_a_loop_that_is_stuck_is_not_waited_for() -> None:
    source = LoopSource(dict, timeout_s=0.05)
    refused: list[str] = []

    def export() -> None:
        try:
            source()
        except SourceBusy as busy:
            refused.append(str(busy))

    thread = threading.Thread(target=export)
    thread.start()
    thread.join(5)  # the loop does nothing else meanwhile
    assert refused == ["the event loop did not answer within 0.05 s"]
