"""Output in the form of a class, and what was delivered of output that failed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pydantic
import pytest

import sage_client as sage
from sage.controlplane.v1 import inference_pb2
from sage_client import AsyncClient
from sage_wire.errors import ErrorReason
from tests.integration.clients.fake_scheduler import (
    FakeScheduler,
    accepted,
    fail,
    finished,
    scheduled,
    tokens,
    whole_text,
)

pytestmark = pytest.mark.usefixtures("transport")

Events = AsyncIterator[inference_pb2.GenerateResponse]


class City(pydantic.BaseModel):
    name: str
    people: int


def says(text: str) -> Callable[..., Events]:
    """Return a Generate that outputs ``text`` as one token."""

    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        yield inference_pb2.GenerateResponse(tokens=inference_pb2.Tokens(token_ids=[1], text=text))
        yield finished(1)

    return generate


async def test_a_finished_request_has_an_instance_of_the_class(scheduler: FakeScheduler, client: AsyncClient) -> None:
    scheduler.generate = says('{"name": "Bern", "people": 140000}')
    done = await client.generate("A city", response_format=City).result()
    assert done.parsed == City(name="Bern", people=140_000)
    assert json.loads(done.to_json())["parsed"] == {"name": "Bern", "people": 140_000}
    sent = scheduler.requests[-1].spec.sampling.structured_output.json_schema
    assert json.loads(sent) == City.model_json_schema()


async def test_output_that_is_cut_keeps_its_text_in_the_error(scheduler: FakeScheduler, client: AsyncClient) -> None:
    scheduler.generate = says('{"name": "Be')
    with pytest.raises(sage.OutputInvalidError, match=r"no City; max_tokens ended it") as caught:
        await client.generate("A city", response_format=City, request_id="r-1").result()
    assert caught.value.request_id == "r-1"
    assert caught.value.partial is not None
    assert caught.value.partial.text == '{"name": "Be'


async def test_a_format_without_a_schema_is_refused_by_its_name(client: AsyncClient) -> None:
    with pytest.raises(sage.InvalidRequestError, match=r"response_format: cannot be sent: must be a pydantic model"):
        client.generate("A city", response_format={"type": "text"})  # type: ignore[arg-type]
    with pytest.raises(sage.InvalidRequestError, match=r"response_format: json_schema may not be given beside it"):
        client.generate("A city", response_format=City, json_schema="{}")
    with pytest.raises(sage.InvalidRequestError, match="at most one of"):
        client.generate("A city", response_format=City, regex="a")


async def test_an_error_has_what_was_delivered_before_it(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def late(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        yield scheduled()
        yield tokens(0, 2)
        await fail(context, ErrorReason.DEADLINE_EXCEEDED, "the deadline passed")

    scheduler.generate = late
    with pytest.raises(sage.DeadlineExceededError) as caught:
        await client.generate("hi").result()
    partial = caught.value.partial
    assert partial is not None
    assert (partial.text, partial.token_ids) == (whole_text(2), (100, 101))
    assert [each.instance_id for each in partial.decisions] == ["executor-1"]


async def test_an_error_without_output_has_none(scheduler: FakeScheduler, client: AsyncClient) -> None:
    async def refuse(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        await fail(context, ErrorReason.QUEUE_FULL, "full")
        yield accepted(request)

    scheduler.generate = refuse
    with pytest.raises(sage.QueueFullError) as caught:
        await client.generate("hi").result()
    assert caught.value.partial is None
