"""/v1/embeddings takes OpenAI's fields and ours, and answers in OpenAI's form."""

from __future__ import annotations

import asyncio
import base64
import json
from array import array
from collections.abc import Mapping
from typing import Any, cast

import pytest

from sage_client import AsyncClient, Embeddings, FieldViolation, InvalidRequestError, SageError, Usage
from sage_gateway.asgi import Message
from sage_gateway.caller_clients import CallerClients
from sage_gateway.embedding_application import EmbeddingApplication
from sage_gateway.front_door import FrontDoor
from sage_gateway.model_catalogue import ModelCatalogue
from tests.unit.gateway.fleet_of_models import ListedModels, model
from tests.unit.gateway.http_client import Answered, call

ROUTE = "/v1/embeddings"


class Embedder:
    """Implements the part of the SDK's client that is used; all vectors are the same."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Mapping[str, Any]]] = []
        self.error: SageError | None = None
        self.waits = False
        self.started = asyncio.Event()
        self.cancelled = False

    async def embed(self, inputs: Any, **options: Any) -> Embeddings:
        self.calls.append((inputs, options))
        self.started.set()
        if self.error is not None:
            raise self.error
        if self.waits:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        count = len(inputs) if isinstance(inputs, list) and not isinstance(inputs[0], int) else 1
        return Embeddings(
            vectors=tuple(array("f", [0.5, -2.0]) for _ in range(count)),
            model="e",
            request_id=options["request_id"],
            usage=Usage(prompt_tokens=7, completion_tokens=0, cached_prompt_tokens=0),
            cost=0.0,
        )

    async def close(self) -> None: ...


async def door_of(embedder: Embedder) -> FrontDoor:
    clients = CallerClients(lambda token: cast(AsyncClient, embedder))
    fleet = ListedModels(model("e", embeds=True, adapters=("lora",)))
    catalogue = ModelCatalogue(fleet, fleet.build, lambda *built: EmbeddingApplication(built[0], clients, *built[1:]))
    await catalogue.ask()
    await catalogue.build()
    return FrontDoor(catalogue, lambda: (b"text/plain", b""), "0.32.0", check_caller)


async def check_caller(token: str) -> None: ...


async def ask(embedder: Embedder, **body: Any) -> Answered:
    return await call(await door_of(embedder), "POST", ROUTE, body)


@pytest.mark.parametrize("inputs", ["a text", [1, 2, 3], ["a", "b"], [[1, 2], [3]], ["a", [3]]])
async def test_texts_and_token_ids_are_inputs(inputs: Any) -> None:
    embedder = Embedder()
    answered = await ask(embedder, model="e", input=inputs)
    assert answered.status == 200
    [(given, options)] = embedder.calls
    assert (given, options["model"]) == (inputs, "e")
    assert answered.headers["x-request-id"] == options["request_id"]
    assert answered.json["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [each["index"] for each in answered.json["data"]] == list(range(len(answered.json["data"])))
    assert all(each["embedding"] == [0.5, -2.0] for each in answered.json["data"])


async def test_vectors_may_come_as_base64() -> None:
    answered = await ask(Embedder(), input="x", encoding_format="base64")
    data = base64.b64decode(answered.json["data"][0]["embedding"])
    assert data == bytes.fromhex("0000003f000000c0")


async def test_options_reach_the_sdk() -> None:
    embedder = Embedder()
    sage = {"priority": "high", "deadline": 3, "request_id": "mine", "tenant": "t", "no_instance": "wait"}
    answered = await ask(embedder, model="lora", input="x", dimensions=8, normalize=True, user="u", sage=sage)
    assert (answered.status, answered.json["model"], answered.headers["x-request-id"]) == (200, "lora", "mine")
    [(_, options)] = embedder.calls
    assert {**options, "priority": str(options["priority"]), "no_instance": options["no_instance"].value} == {
        "model": "e",
        "adapter": "lora",
        "priority": str(options["priority"]),
        "deadline": 3.0,
        "request_id": "mine",
        "tenant": "t",
        "no_instance": "wait",
        "dimensions": 8,
        "normalize": True,
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [["a"]]}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": [True]}, "input"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "x", "dimensions": "8"}, "dimensions"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "normalize": 1}, "normalize"),
        ({"input": "x", "volume": 3}, "volume"),
        ({"input": "x", "sage": {"session": "s"}}, "sage.session"),
        ({"input": "x", "sage": {"ttft_target": 1}}, "sage.ttft_target"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    embedder = Embedder()
    answered = await ask(embedder, model="e", **fields)
    assert (answered.status, answered.error["param"], embedder.calls) == (400, param, [])


@pytest.mark.parametrize("fields", [{"truncate_prompt_tokens": 3}, {"messages": []}, {"encoding_format": "bytes"}])
async def test_what_only_vllms_server_understands_it_answers(fields: dict[str, Any]) -> None:
    embedder = Embedder()
    body = {"model": "e", "input": "x", **fields}
    answered = await ask(embedder, **body)
    assert (answered.json["body"], embedder.calls) == (body, [])


async def test_without_vllms_server_the_rest_says_why() -> None:
    clients = CallerClients(lambda token: cast(AsyncClient, Embedder()))
    application = EmbeddingApplication(model("e", embeds=True), clients, None, "no such architecture")
    catalogue = ModelCatalogue(fleet := ListedModels(model("e", embeds=True)), fleet.build, lambda *_: application)
    await catalogue.ask()
    await catalogue.build()
    door = FrontDoor(catalogue, lambda: (b"text/plain", b""), "0.32.0", check_caller)
    answered = await call(door, "POST", "/v1/score", {"model": "e"})
    assert answered.status == 501
    assert "no such architecture" in answered.error["message"]


async def test_the_schedulers_refusal_names_the_field() -> None:
    embedder = Embedder()
    embedder.error = InvalidRequestError.of([FieldViolation(field="inputs[3]", description="is too long")])
    answered = await ask(embedder, model="e", input="x")
    assert (answered.status, answered.error["param"]) == (400, "input")
    assert "inputs[3]" in answered.error["message"]


async def test_a_client_that_goes_away_cancels_its_request() -> None:
    embedder = Embedder()
    embedder.waits = True
    door = await door_of(embedder)
    messages: list[Message] = [{"type": "http.request", "body": json.dumps({"input": "x"}).encode()}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await embedder.started.wait()
        return {"type": "http.disconnect"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async with asyncio.timeout(10):
        await door({"type": "http", "method": "POST", "path": ROUTE, "headers": []}, receive, send)
    assert (embedder.cancelled, sent) == (True, [])
