"""The receiver is slow, refuses, or is not there: requests do not notice, and what is lost is counted."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from tests.integration.system.local_fleet import LocalFleet
from tests.integration.telemetry.otlp_receiver import OtlpReceiver
from tests.integration.telemetry.scraped_page import Page, scrape
from tests.support.eventually import eventually

NOBODY = "http://127.0.0.1:9"  # discard: nothing listens there
REQUESTS = 20


async def page_of(fleet: LocalFleet) -> Page:
    return await scrape(fleet.scheduler.telemetry.exports.metrics_port)


async def answer_all(fleet: LocalFleet) -> float:
    """Seconds that the requests took."""
    started = time.perf_counter()
    calls = [fleet.client.generate(f"Story {n}", max_tokens=4).result() for n in range(REQUESTS)]
    await asyncio.gather(*calls)
    return time.perf_counter() - started


async def test_a_receiver_that_is_away_costs_nothing_but_its_spans(
    telemetry: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sage_telemetry")
    settings = {**telemetry, "otlp_endpoint": NOBODY}
    async with LocalFleet(telemetry=settings) as fleet:
        await fleet.add("one", settings={"telemetry": settings})
        assert await answer_all(fleet) < 3

        async def dropped() -> bool:
            page = await page_of(fleet)
            return page.total("sage_telemetry_spans_total", result="dropped_not_delivered") >= REQUESTS

        await eventually(dropped, what="drops to be counted")
        stopping = time.perf_counter()
    assert time.perf_counter() - stopping < 5
    complaints = [r for r in caplog.records if "spans do not reach" in r.message]
    assert 1 <= len(complaints) <= 2, "once per process, not per batch"


async def test_a_receiver_that_never_answers_holds_up_nobody(receiver: OtlpReceiver, telemetry: dict[str, Any]) -> None:
    receiver.delay_s = 60
    async with LocalFleet(telemetry=telemetry) as fleet:
        await fleet.add("one", settings={"telemetry": telemetry})
        assert await answer_all(fleet) < 3
        await eventually(lambda: receiver.calls, what="the receiver to be called")
        assert await answer_all(fleet) < 3
        stopping = time.perf_counter()
    assert time.perf_counter() - stopping < 5
    assert receiver.spans == []


async def test_spans_arrive_once_the_receiver_is_well_again(receiver: OtlpReceiver, telemetry: dict[str, Any]) -> None:
    receiver.refuses = True
    async with LocalFleet(telemetry=telemetry) as fleet:
        await fleet.add("one", settings={"telemetry": telemetry})
        await answer_all(fleet)
        await eventually(lambda: receiver.calls > 1, what="tries")
        receiver.refuses = False
        await answer_all(fleet)
        await eventually(lambda: [s for s in receiver.spans if s.name == "sage.request"], what="spans")


async def test_what_waits_is_delivered_when_the_services_end(receiver: OtlpReceiver, telemetry: dict[str, Any]) -> None:
    settings = {**telemetry, "trace_push_interval_s": 60.0, "metrics_push_interval_s": 60.0}
    async with LocalFleet(telemetry=settings) as fleet:
        await fleet.add("one", settings={"telemetry": settings})
        await answer_all(fleet)
        assert receiver.spans == []
    names = [span.name for span in receiver.spans]
    assert (names.count("sage.request"), names.count("sage.execute")) == (REQUESTS, REQUESTS)
    assert receiver.metrics.keys() == {"sage-scheduler", "sage-executor"}
