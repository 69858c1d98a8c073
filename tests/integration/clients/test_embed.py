"""``AsyncClient.embed``: what is sent, what comes back, and what is sent again."""

from __future__ import annotations

import math
from typing import Any

import grpc
import pytest

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_client import (
    AsyncClient,
    InvalidRequestError,
    NoInstanceError,
    NotSupportedError,
    ProtocolError,
    Reconnect,
    RecoveringError,
    UnavailableError,
    WaitTimeoutError,
)
from sage_wire.errors import ErrorReason
from tests.integration.clients.fake_scheduler import Context, FakeScheduler, fail, retry_in


async def test_everything_that_is_asked_for_is_sent(scheduler: FakeScheduler) -> None:
    inputs: list[str | list[int]] = ["a text", [1, 2, 3]]
    async with AsyncClient(scheduler.address, tenant="team") as client:
        found = await client.embed(
            inputs,
            model="embedder",
            dimensions=8,
            normalize=True,
            priority="high",
            deadline=2.5,
            adapter="lora",
            request_id="mine",
            preferred_instance="one",
            no_instance="wait",
        )
    (request,) = scheduler.embed_requests
    assert [each.WhichOneof("input") for each in request.inputs] == ["text", "tokens"]
    assert list(request.inputs[1].tokens.ids) == [1, 2, 3]
    assert (request.tenant, request.model, request.adapter, request.request_id) == ("team", "embedder", "lora", "mine")
    assert (request.dimensions, request.normalize, request.as_bytes) == (8, True, True)
    assert request.priority == common_pb2.PRIORITY_HIGH
    assert request.deadline.ToMilliseconds() == 2_500
    assert request.no_instance == inference_pb2.NO_INSTANCE_WAIT
    assert request.preferred_instance == "one"
    assert (len(found), found.model, found.request_id, found.cost) == (2, "embedder", "mine", 0.5)
    assert found.usage.prompt_tokens == 7
    assert math.fsum(found[0]) == len("atext")


async def test_documents_are_scored_by_their_vectors(scheduler: FakeScheduler) -> None:
    async with AsyncClient(scheduler.address) as client:
        found = await client.score("ab", ["xyz", "ab", "ba a"], request_id="mine")
        (request,) = scheduler.embed_requests
        assert [each.text for each in request.inputs] == ["ab", "xyz", "ab", "ba a"]
        assert list(found) == pytest.approx([0.0, 1.0, 3 / math.sqrt(10)])
        assert (found.ranked(), found[1:], found.request_id) == ([1, 2, 0], found.scores[1:], "mine")
        assert found.to_dict()["scores"] == list(found)


async def test_a_model_that_scores_pairs_itself_is_asked_over_http(scheduler: FakeScheduler) -> None:
    async with AsyncClient(scheduler.address) as client:
        assert (await client.embed("x", model="reranker")).classifies
        with pytest.raises(NotSupportedError, match="/v1/score"):
            await client.score("x", ["y"], model="reranker")


async def test_what_cannot_be_sent_is_named(scheduler: FakeScheduler) -> None:
    wrong: Any = {"dimensions": -1, "priority": "urgent"}
    async with AsyncClient(scheduler.address) as client:
        with pytest.raises(InvalidRequestError) as error:
            await client.embed(list[str | list[int]](["fine", [-1]]), **wrong)
        with pytest.raises(TypeError, match="dimension"):
            await client.embed("x", dimension=3)  # type: ignore[call-arg]
    assert {violation.field for violation in error.value.violations} == {"inputs[1]", "dimensions", "priority"}
    assert not scheduler.embed_requests


@pytest.mark.parametrize("recovers", [True, False], ids=["recovering", "broken"])
async def test_it_is_sent_again_while_the_scheduler_is_away(scheduler: FakeScheduler, recovers: bool) -> None:
    async def away(request: inference_pb2.EmbedRequest, context: Context) -> None:
        if len(scheduler.embed_requests) < 3:
            if recovers:
                await fail(context, ErrorReason.RECOVERING, "not now", retry_in(0.01))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")

    scheduler.embed = away
    async with AsyncClient(scheduler.address, reconnect=Reconnect(first_delay_s=0.01)) as client:
        await client.embed("x")
    assert len({request.request_id for request in scheduler.embed_requests}) == 1
    assert [request.fresh for request in scheduler.embed_requests] == [True, False, False], "its id may be known then"


async def test_it_is_not_sent_again_for_ever(scheduler: FakeScheduler) -> None:
    async def away(request: inference_pb2.EmbedRequest, context: Context) -> None:
        await fail(context, ErrorReason.RECOVERING, "not now", retry_in(0.01))

    scheduler.embed = away
    async with AsyncClient(scheduler.address) as client:
        with pytest.raises(
            (RecoveringError, WaitTimeoutError)
        ):  # the latter if the last call is the one that is too late
            await client.embed("x", timeout=0.2)
    async with AsyncClient("127.0.0.1:1", reconnect=Reconnect(attempts=2, first_delay_s=0.01)) as client:
        with pytest.raises(UnavailableError):
            await client.embed("x")


async def test_other_errors_end_it_at_once(scheduler: FakeScheduler) -> None:
    async def refuse(request: inference_pb2.EmbedRequest, context: Context) -> None:
        await fail(context, ErrorReason.NO_INSTANCE, "nobody")

    scheduler.embed = refuse
    async with AsyncClient(scheduler.address) as client:
        with pytest.raises(NoInstanceError):
            await client.embed("x")
    assert len(scheduler.embed_requests) == 1


async def test_a_vector_that_is_none_breaks_the_contract(
    scheduler: FakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.integration.clients.fake_scheduler.letters", lambda text: b"123")
    async with AsyncClient(scheduler.address) as client:
        with pytest.raises(ProtocolError, match="3 bytes"):
            await client.embed("x")
