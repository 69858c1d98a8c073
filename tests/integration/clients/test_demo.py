"""A request of the demonstration, against a scheduler that answers as told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from sage.controlplane.v1 import inference_pb2
from sage_client import AsyncClient
from sage_local.demo.calibration import Calibration
from sage_local.demo.outcome import run_planned
from sage_local.demo.workload import burst
from sage_wire.errors import ErrorReason
from tests.integration.clients.fake_scheduler import FakeScheduler, accepted, events, fail, finished, tokens

Events = AsyncIterator[inference_pb2.GenerateResponse]

PLANNED = burst(Calibration(tokens_per_s=1000.0, stream_tokens_per_s=100.0, has_chat_template=True, burst_s=1.0))[0]


async def test_a_request_that_went_well(scheduler: FakeScheduler, client: AsyncClient) -> None:
    outcome = await run_planned(client, PLANNED, model="tiny", prefix="fifo")

    assert outcome.error == ""
    assert (outcome.tokens, outcome.instance_id) == (PLANNED.output_tokens, "executor-1")
    assert outcome.why == "earliest predicted finish 0.00 s"
    assert (outcome.wait_s, outcome.ttft_s, outcome.slo_met) == (0.005, 0.02, True)
    assert scheduler.requests[0].request_id == outcome.request_id == f"fifo-{PLANNED.name}"
    assert scheduler.requests[0].spec.sampling.ignore_eos


async def test_a_request_that_failed(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        await fail(context, ErrorReason.GENERATION_FAILED, "every attempt failed")

    scheduler.generate = generate

    assert (await run_planned(client, PLANNED, model="tiny", prefix="fifo")).error == "every attempt failed"


@pytest.mark.parametrize(("arriving", "reported"), [(3, 5), (5, 3), (3, 3)])
async def test_a_wrong_number_of_tokens_is_an_error(
    scheduler: FakeScheduler, client: AsyncClient, arriving: int, reported: int
) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield events(request, 0)[0]
        for index in range(arriving):
            yield tokens(index)
        yield finished(reported)

    scheduler.generate = generate
    outcome = await run_planned(client, PLANNED, model="tiny", prefix="fifo")

    asked = PLANNED.output_tokens
    assert outcome.error == f"{asked} tokens requested, {reported} reported, {arriving} arrived"
