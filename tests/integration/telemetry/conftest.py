from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.integration.telemetry.catalogued import unlisted
from tests.integration.telemetry.json_log import JsonLog
from tests.integration.telemetry.otlp_receiver import OtlpReceiver
from tests.support.free_port import free_port


@pytest.fixture
async def receiver() -> AsyncIterator[OtlpReceiver]:
    """Whatever a test is about: what it was sent is in the catalogue."""
    async with OtlpReceiver() as made:
        yield made
    assert sorted(set(unlisted(made.spans))) == []


@pytest.fixture
def telemetry(receiver: OtlpReceiver) -> dict[str, Any]:
    """The section ``telemetry`` of both services' configuration: everything on."""
    return {
        "otlp_endpoint": receiver.endpoint,
        "metrics_listen": "127.0.0.1:0",
        "trace_push_interval_s": 0.05,
        "metrics_push_interval_s": 0.2,
    }


@pytest.fixture
async def fleet(telemetry: dict[str, Any]) -> AsyncIterator[LocalFleet]:
    """A scheduler, no executor yet."""
    async with LocalFleet(telemetry=telemetry) as made:
        yield made


@pytest.fixture
def json_lines(caplog: pytest.LogCaptureFixture) -> Iterator[JsonLog]:
    caplog.set_level(logging.DEBUG)
    handler = JsonLog("a")
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def executor_port() -> int:
    """Where the page of the executor ``one`` is."""
    return free_port()


@pytest.fixture
async def one(fleet: LocalFleet, telemetry: dict[str, Any], executor_port: int) -> LocalExecutor:
    """The fleet's only executor."""
    settings = {**telemetry, "metrics_listen": f"127.0.0.1:{executor_port}"}
    return await fleet.add("one", settings={"telemetry": settings})
