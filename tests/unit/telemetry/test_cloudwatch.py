"""Metrics in CloudWatch: what is told of counts and values, in how many calls, and what a failed call costs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from sage_telemetry import cloudwatch_push
from sage_telemetry.cloudwatch_data import CloudWatchData, Datum
from sage_telemetry.cloudwatch_push import CloudWatchPush
from sage_telemetry.cloudwatch_settings import CloudWatchSettings
from sage_telemetry.instrument import Instrument, Kind
from sage_telemetry.meter import Meter
from sage_telemetry.resource import Identity

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENDED = Instrument(
    name="sage.ended", kind=Kind.COUNTER, unit="{request}", help="Ended.", labels={"model": "", "reason": ""}
)
WAITS = Instrument(
    name="sage.wait", kind=Kind.HISTOGRAM, unit="s", help="Waits.", labels={"model": ""}, buckets=(0.5, 1.0, 2.0)
)
QUEUED = Instrument(
    name="sage.queued",
    kind=Kind.GAUGE,
    unit="{request}",
    help="Queued.",
    labels={"model": "", "class": ""},
    observed=True,
)
SETTINGS = CloudWatchSettings(namespace="Sage")


def meter() -> Meter:
    made = Meter([ENDED, WAITS, QUEUED])
    made.observe(lambda: {QUEUED: [(("m", "HIGH"), 1.0), (("m", "LOW"), 5.0), (("é", "LOW"), 2.0)]})
    return made


def data_of(found: list[Datum], name: str) -> list[dict[str, Any]]:
    return [each.body for each in found if each.body["MetricName"] == name]


def test_a_counter_tells_what_it_grew_by_since_it_was_delivered() -> None:
    metrics, data = meter(), CloudWatchData({"service": "scheduler"}, ["model"], [])
    metrics.counter(ENDED).labels("m", "done").inc(3)
    metrics.counter(ENDED).labels("m", "failed").inc(1)
    first = data.of(metrics.read(), NOW)
    [body] = data_of(first, "sage.ended")
    assert body["Value"] == 4, "labels that are no dimensions are added up"
    assert body["Dimensions"] == [{"Name": "service", "Value": "scheduler"}, {"Name": "model", "Value": "m"}]
    assert (body["Unit"], body["Timestamp"]) == ("Count", NOW)

    [again] = data_of(data.of(metrics.read(), NOW), "sage.ended")
    assert again["Value"] == 4, "it was not delivered"
    data.delivered(first)
    assert not data_of(data.of(metrics.read(), NOW), "sage.ended"), "nothing new"
    metrics.counter(ENDED).labels("m", "done").inc(2)
    [body] = data_of(data.of(metrics.read(), NOW), "sage.ended")
    assert body["Value"] == 2


def test_a_histogram_tells_its_new_observations_as_the_middles_of_their_buckets() -> None:
    metrics, data = meter(), CloudWatchData({}, ["model"], [])
    for wait_s in (0.1, 0.2, 0.7, 60.0):
        metrics.histogram(WAITS).labels("m").observe(wait_s)
    metrics.histogram(WAITS).labels("n").observe(1.5)
    found = data.of(metrics.read(), NOW)
    one, other = data_of(found, "sage.wait")
    assert dict(zip(one["Values"], one["Counts"], strict=True)) == {0.25: 2, 0.75: 1, 2.0: 1}
    assert dict(zip(other["Values"], other["Counts"], strict=True)) == {1.5: 1}
    assert one["Unit"] == "Seconds"
    data.delivered(found)
    metrics.histogram(WAITS).labels("m").observe(0.3)
    [body] = data_of(data.of(metrics.read(), NOW), "sage.wait")
    assert (body["Values"], body["Counts"]) == ([0.25], [1])


def test_a_gauge_tells_its_values_as_they_are() -> None:
    first, second = data_of(CloudWatchData({}, ["model"], []).of(meter().read(), NOW), "sage.queued")
    assert first["StatisticValues"] == {"SampleCount": 2, "Sum": 6.0, "Minimum": 1.0, "Maximum": 5.0}
    assert second["Value"] == 2.0
    assert second["Dimensions"] == [{"Name": "model", "Value": "?"}], "ASCII only"


def test_only_metrics_that_are_asked_for_are_told() -> None:
    found = CloudWatchData({}, [], ["sage.que", "sage.other"]).of(meter().read(), NOW)
    assert {each.body["MetricName"] for each in found} == {"sage.queued"}


class Client:
    """Takes calls as boto3's would, or refuses them."""

    def __init__(self) -> None:
        self.calls: list[list[dict[str, Any]]] = []
        self.refuses = 0

    def put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> None:
        assert Namespace == "Sage"
        if self.refuses:
            self.refuses -= 1
            raise OSError("away")
        self.calls.append(MetricData)


def pushed(client: Client, source: Meter, **settings: Any) -> CloudWatchPush:
    identity = Identity(service="executor", instance_id="e1")
    return CloudWatchPush(source, SETTINGS.model_copy(update=settings), identity, client)


def test_what_a_failed_call_lacked_goes_with_the_next_export(caplog: pytest.LogCaptureFixture) -> None:
    client, metrics = Client(), meter()
    push = pushed(client, metrics, metrics=("sage.ended",))
    metrics.counter(ENDED).labels("m", "done").inc(3)
    client.refuses = 2
    push._export()
    push._export()
    metrics.counter(ENDED).labels("m", "done").inc(1)
    push._export()
    [[body]] = client.calls
    assert body["Value"] == 4
    assert caplog.text.count("do not reach CloudWatch: away") == 1


def test_calls_and_exports_are_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(cloudwatch_push, "BATCH", 2)
    monkeypatch.setattr(cloudwatch_push, "DATA_LIMIT", 5)
    client, metrics = Client(), meter()
    for n in range(9):
        metrics.counter(ENDED).labels(f"m{n}", "done").inc()
    pushed(client, metrics, metrics=("sage.ended",))._export()
    assert [len(call) for call in client.calls] == [2, 2, 1]
    assert "4 of 9 metrics are not exported" in caplog.text


def test_instance_as_a_dimension_is_the_executors_id() -> None:
    client = Client()
    pushed(client, meter(), dimensions=("instance",))._export()
    assert {"Name": "instance", "Value": "e1"} in client.calls[0][0]["Dimensions"]


@pytest.mark.parametrize("namespace", ["", "AWS/EC2", "with space", "x" * 256])
def test_a_namespace_that_cannot_be_is_an_error(namespace: str) -> None:
    with pytest.raises(ValidationError, match="namespace"):
        CloudWatchSettings(namespace=namespace)


def test_without_boto3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sage_telemetry.cloudwatch_settings.find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=r"pip install 'sage-control-plane\[cloudwatch\]'"):
        CloudWatchSettings(namespace="Sage")
