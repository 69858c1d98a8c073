"""The front door finds the model, refuses what it must, and tells the model's application who asks and for what."""

from __future__ import annotations

import asyncio

import pytest

from sage_client import AuthenticationError, Priority, UnavailableError
from sage_gateway import front_door
from sage_gateway.asgi import Message
from sage_gateway.front_door import FrontDoor
from sage_gateway.model_catalogue import ModelCatalogue
from tests.unit.gateway.fleet_of_models import ListedModels, model
from tests.unit.gateway.http_client import call

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"


async def door_of(fleet: ListedModels) -> FrontDoor:
    catalogue = ModelCatalogue(fleet, fleet.build, fleet.embedding)
    await catalogue.ask()
    await catalogue.build()
    return FrontDoor(catalogue, lambda: (b"text/plain", b"metrics"), "0.32.0", check_caller)


async def check_caller(token: str) -> None:
    if token == "unknown":
        raise AuthenticationError("the bearer token is not known", reason="UNAUTHENTICATED")
    if token == "away":
        raise UnavailableError("no connection")


async def test_a_request_reaches_the_model_that_it_names() -> None:
    door = await door_of(ListedModels(model("a"), model("b", adapters=("x",))))
    for name, served in (("a", "a"), ("b", "b"), ("x", "b")):
        answered = await call(door, "POST", CHAT, {"model": name, "n": 1})
        assert (answered.status, answered.json["model"]) == (200, served)
        assert answered.json["body"] == {"model": name, "n": 1}


async def test_a_body_may_come_in_pieces() -> None:
    door = await door_of(ListedModels(model()))
    answered = await call(door, "POST", CHAT, {"model": "m", "messages": ["x" * 100]}, pieces=7)
    assert answered.json["body"] == {"model": "m", "messages": ["x" * 100]}


async def test_the_only_model_needs_no_name() -> None:
    door = await door_of(ListedModels(model()))
    assert (await call(door, "POST", "/tokenize", {"prompt": "x"})).status == 200


async def test_a_model_embeds_or_generates() -> None:
    door = await door_of(ListedModels(model("e", embeds=True), model("g")))
    assert (await call(door, "POST", "/v1/embeddings", {"model": "e", "input": "x"})).json["model"] == "e"
    for path, name, what in ((CHAT, "e", "does not generate"), ("/v1/embeddings", "g", "does not embed")):
        answered = await call(door, "POST", path, {"model": name})
        assert (answered.status, answered.error["param"]) == (400, "model")
        assert what in answered.error["message"]


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("/v1/score", {"g": "generates and does not embed"}),
        ("/rerank", {"g": "generates and does not embed"}),
        ("/pooling", {"g": "generates and does not embed"}),
        ("/classify", {"g": "generates and does not embed", "e": "embeds and does not classify"}),
        ("/v1/embeddings", {"g": "generates and does not embed", "c": "classifies and does not embed"}),
        ("/v1/responses", {"e": "embeds and does not generate", "c": "classifies and does not generate"}),
        ("/tokenize", {}),
    ],
)
async def test_each_kind_of_model_has_its_routes(path: str, wrong: dict[str, str]) -> None:
    fleet = ListedModels(model("g"), model("e", embeds=True), model("c", embeds=True, classifies=True))
    door = await door_of(fleet)
    for name in ("g", "e", "c"):
        answered = await call(door, "POST", path, {"model": name})
        assert answered.status == (400 if name in wrong else 200)
        if name in wrong:
            assert wrong[name] in answered.error["message"]


@pytest.mark.parametrize(
    ("path", "meant"),
    [(CHAT, "g"), ("/v1/messages", "g"), ("/v1/embeddings", "e"), ("/classify", "c"), ("/rerank", "e, c")],
)
async def test_without_a_name_the_only_model_is_meant_that_answers_the_route(path: str, meant: str) -> None:
    fleet = ListedModels(model("g"), model("e", embeds=True), model("c", embeds=True, classifies=True))
    answered = await call(await door_of(fleet), "POST", path, {"input": "x"})
    if "," not in meant:
        assert answered.json["model"] == meant
        return
    assert (answered.status, answered.error["param"]) == (400, "model")
    assert set(answered.error["message"].partition(": ")[2].split(", ")) == set(meant.split(", "))


async def test_without_a_name_and_a_model_that_answers_the_route_all_are_named() -> None:
    fleet = ListedModels(model("c", embeds=True, classifies=True), model("e", embeds=True))
    answered = await call(await door_of(fleet), "POST", CHAT, {})
    assert (answered.status, answered.error["param"]) == (400, "model")
    assert answered.error["message"].endswith("none of the models does that: c, e")


async def test_several_models_need_one() -> None:
    door = await door_of(ListedModels(model("a"), model("b")))
    answered = await call(door, "POST", "/tokenize", {"prompt": "x"})
    assert (answered.status, answered.error["param"]) == (400, "model")
    assert "a, b" in answered.error["message"]


@pytest.mark.parametrize("name", ["other", 5, "x" * 5_000])
async def test_an_unknown_model_is_not_found(name: object) -> None:
    door = await door_of(ListedModels(model("a"), model("b")))
    answered = await call(door, "POST", CHAT, {"model": name})
    assert (answered.status, answered.error["code"]) == (404, "UNKNOWN_MODEL")
    assert len(answered.body) < 500


async def test_without_any_model_the_caller_is_to_come_again() -> None:
    door = await door_of(ListedModels())
    answered = await call(door, "POST", CHAT, {"model": "m"})
    assert (answered.status, answered.headers["retry-after"]) == (503, "2")


async def test_a_model_that_could_not_be_built_says_why() -> None:
    fleet = ListedModels(model("a"))
    fleet.broken = ValueError("broken")
    answered = await call(await door_of(fleet), "POST", CHAT, {"model": "a"})
    assert answered.status == 503
    assert "broken" in answered.error["message"]


async def test_the_application_learns_who_asks_and_for_what() -> None:
    fleet = ListedModels(model())
    headers = {"authorization": "Bearer secret", "x-sage-priority": "high", "traceparent": "00-1-2-01"}
    await call(await door_of(fleet), "POST", CHAT, {"model": "m", "sage": {"deadline": 3}}, headers)
    [seen] = fleet.calls
    assert (seen.token, seen.options.priority, seen.options.deadline) == ("secret", Priority.HIGH, 3.0)
    assert seen.trace == {"traceparent": "00-1-2-01"}


async def test_a_wrong_option_is_refused_by_name() -> None:
    fleet = ListedModels(model())
    answered = await call(await door_of(fleet), "POST", CHAT, {"model": "m"}, {"x-sage-deadline": "soon"})
    assert (answered.status, answered.error["param"], fleet.calls) == (400, "x-sage-deadline", [])


async def test_a_body_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_door, "BODY_LIMIT_BYTES", 50)
    fleet = ListedModels(model())
    answered = await call(await door_of(fleet), "POST", CHAT, {"model": "m", "prompt": "x" * 50}, pieces=3)
    assert (answered.status, fleet.calls) == (413, [])
    answered = await call(await door_of(fleet), "POST", MESSAGES, {"model": "m", "prompt": "x" * 50})
    assert (answered.status, answered.json["type"]) == (413, "error")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("GET", MESSAGES, 405),
        ("POST", "/v1/models", 404),
        ("POST", "/invocations", 404),
        ("POST", "/sleep", 404),
        ("GET", "/docs", 404),
        ("GET", "/", 404),
    ],
)
async def test_what_is_not_offered_does_not_exist(method: str, path: str, status: int) -> None:
    answered = await call(await door_of(ListedModels(model())), method, path)
    assert answered.status == status
    assert answered.error["message"]
    assert (answered.json.get("type") == "error") is (path == MESSAGES)


async def test_models_are_listed_with_their_adapters() -> None:
    door = await door_of(ListedModels(model("b"), model("a", adapters=("x",))))
    listed = (await call(door, "GET", "/v1/models")).json
    assert [(card["id"], card["parent"]) for card in listed["data"]] == [("a", None), ("x", "a"), ("b", None)]
    assert (await call(door, "GET", "/v1/models/x")).json["id"] == "x"
    assert (await call(door, "GET", "/v1/models/none")).status == 404


async def test_health_metrics_and_version() -> None:
    fleet = ListedModels(model())
    door = await door_of(fleet)
    assert (await call(door, "GET", "/health")).status == 200
    assert (await call(door, "GET", "/version")).json == {"version": "0.32.0"}
    assert (await call(door, "GET", "/metrics")).body == b"metrics"
    answered = await call(await door_of(ListedModels()), "GET", "/health")
    assert (answered.status, answered.json["reason"]) == (503, "no model has an instance that is ready")


@pytest.mark.parametrize("body", [b"", b"{nope", b"[1]", b'{"prompt": "\xff"}', b'{"prompt":' + b"[" * 200_000])
async def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    fleet = ListedModels(model())
    answered = await call(await door_of(fleet), "POST", CHAT, body)
    assert (answered.status, answered.error["type"], fleet.calls) == (400, "invalid_request_error", [])


@pytest.mark.parametrize("option", ["deadline", "cost_budget"])
async def test_a_number_beyond_floats_is_refused(option: str) -> None:
    door = await door_of(ListedModels(model()))
    answered = await call(door, "POST", CHAT, {"model": "m", "sage": {option: 10**400}})
    assert (answered.status, answered.error["param"]) == (400, f"sage.{option}")


async def test_an_error_may_name_half_of_a_surrogate_pair() -> None:
    answered = await call(await door_of(ListedModels(model())), "POST", CHAT, b'{"sage": {"\\ud800": 1}}')
    assert (answered.status, answered.error["param"]) == (400, "sage.\ud800")


@pytest.mark.parametrize("token", [b"\xff", b"a\tb", b"a" * 8_193])
async def test_a_key_that_no_header_holds_is_not_known(token: bytes) -> None:
    fleet = ListedModels(model())
    door = await door_of(fleet)
    headers = {"authorization": "Bearer " + token.decode("latin-1")}
    answered = await call(door, "POST", CHAT, {"model": "m"}, headers)
    assert (answered.status, answered.error["code"], fleet.calls) == (401, "UNAUTHENTICATED", [])


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_door, "BODY_TIMEOUT_S", 0.01)
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    door = await door_of(ListedModels(model()))
    await door({"type": "http", "method": "POST", "path": CHAT, "headers": []}, receive, send)
    assert sent[0]["status"] == 408


@pytest.mark.parametrize(("token", "status"), [("unknown", 401), ("away", 503)])
@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/models", ""),
        ("GET", "/v1/models/m", ""),
        ("POST", "/tokenize", "m"),
        ("POST", "/detokenize", "m"),
        ("POST", "/v1/messages/count_tokens", "m"),
        ("POST", CHAT, "other"),
    ],
)
async def test_what_the_gateway_knows_by_itself_is_for_callers_that_the_scheduler_knows(
    token: str, status: int, method: str, path: str, name: str
) -> None:
    fleet = ListedModels(model())
    door = await door_of(fleet)
    answered = await call(door, method, path, {"model": name}, {"authorization": f"Bearer {token}"})
    assert (answered.status, fleet.calls) == (status, [])
    assert "m" not in answered.error["message"].split()
