"""The scheduler's metrics in a CloudWatch on loopback (moto's server), put there by boto3 itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.integration.system.local_fleet import MODEL, LocalFleet
from tests.support.eventually import eventually


@pytest.fixture
def cloudwatch(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a CloudWatch; boto3 has credentials for it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


async def test_a_finished_request_is_in_cloudwatch_once(cloudwatch: str) -> None:
    section = {
        "namespace": "Sage",
        "region": "us-east-1",
        "endpoint_url": cloudwatch,
        "interval_s": 1.0,
        "dimensions": ("model",),
    }
    async with LocalFleet(telemetry={"cloudwatch": section}) as fleet:
        await fleet.add("a")
        for _ in range(3):
            await fleet.client.generate("Once", max_tokens=4).result()
        reader = boto3.client("cloudwatch", region_name="us-east-1", endpoint_url=cloudwatch)

        async def all_told() -> bool:
            return await asyncio.to_thread(total, reader, "sage.requests") == 3

        await eventually(all_told, within_s=30, what="the requests to be in CloudWatch")
        first_tokens = await asyncio.to_thread(total, reader, "sage.request.time_to_first_token", "SampleCount")
    assert first_tokens == 3
    assert await asyncio.to_thread(total, reader, "sage.requests") == 3, "the last export adds nothing"


def total(reader: Any, metric: str, statistic: str = "Sum") -> float:
    """What the scheduler put there for the model, over the last hour."""
    now = datetime.now(UTC)
    [dimension] = [{"Name": "model", "Value": MODEL}]
    found = reader.get_metric_statistics(
        Namespace="Sage",
        MetricName=metric,
        Dimensions=[{"Name": "service", "Value": "scheduler"}, dimension],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(minutes=5),
        Period=60,
        Statistics=[statistic],
    )
    return float(sum(each[statistic] for each in found["Datapoints"]))
