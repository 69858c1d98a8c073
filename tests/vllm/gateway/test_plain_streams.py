"""Plain streams have the bytes that vLLM's response objects give, and are let go, bounded and failed as theirs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage_client import DeadlineExceededError, FinishReason, QueueFullError
from sage_gateway.http_call import current_call
from sage_gateway.plain_streams import qualification
from tests.unit.gateway.scripted_end import end
from tests.vllm.gateway.scripted_fleet import MODEL, Received, Script, ScriptedGateway, Sent, scripted_gateway

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.filterwarnings("default"),  # vLLM warns when it is imported
]

ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Tell me a story."}]},
    "/v1/completions": {"prompt": "Once upon a time"},
}
PATHS = list(ROUTES)
CREATED = 1_700_000_000

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)  # halves of surrogate pairs are no text
pieces = st.tuples(texts, st.integers(0, 3))
ends = st.builds(
    end,
    st.sampled_from([FinishReason.LENGTH, FinishReason.STOP]),
    stop_string=st.none() | texts,
    stop_token_id=st.none() | st.integers(0, 5),
    cached=st.integers(0, 9),
)
cached = st.none() | st.integers(0, 9)
scripts = st.builds(Script, pieces=st.lists(pieces, max_size=5), last=pieces, end=ends, cached=cached)
options = st.fixed_dictionaries(
    {},
    optional={
        "stream_options": st.fixed_dictionaries(
            {"include_usage": st.booleans()}, optional={"continuous_usage_stats": st.booleans()}
        ),
        "ignore_eos": st.booleans(),
        "add_generation_prompt": st.booleans(),
        "request_id": st.sampled_from(["r", 'a "quoted" é']),
    },
)


@pytest.fixture(scope="module")
def loop() -> Any:
    """One event loop for all examples: vLLM's server belongs to it."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def gateway(loop: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> ScriptedGateway:
    return loop.run(scripted_gateway(tmp_path_factory.mktemp("models")))


@pytest.fixture
def by_vllm(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Sets whether vLLM's response objects write all streams."""
    taken = qualification.is_plain_chat, qualification.is_plain_completion
    names = "is_plain_chat", "is_plain_completion"

    def select(theirs: bool) -> None:
        for name, ours in zip(names, taken, strict=True):
            monkeypatch.setattr(qualification, name, (lambda *arguments: False) if theirs else ours)

    return select


def request(path: str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "stream": True, "max_tokens": 50, "request_id": "r", **ROUTES[path], **fields}


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=scripts, fields=options)
def test_the_bytes_are_vllms(
    path: str,
    script: Script,
    fields: dict[str, Any],
    gateway: ScriptedGateway,
    loop: asyncio.Runner,
    by_vllm: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time", lambda: CREATED)
    found = {}
    for theirs in (False, True):
        by_vllm(theirs)
        found[theirs] = loop.run(gateway.body(path, request(path, **fields), script))
    assert found[False] == found[True]


@pytest.mark.parametrize("path", PATHS)
def test_every_character_is_written_as_vllm_writes_it(
    path: str, gateway: ScriptedGateway, loop: asyncio.Runner, by_vllm: Callable[[bool], None], monkeypatch: Any
) -> None:
    monkeypatch.setattr(time, "time", lambda: CREATED)
    characters = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    script = Script(pieces=[(characters[at : at + 65_536], 1) for at in range(0, len(characters), 65_536)])
    found = {}
    for theirs in (False, True):
        by_vllm(theirs)
        found[theirs] = loop.run(gateway.body(path, request(path), script))
    assert found[False] == found[True]


@pytest.mark.parametrize("path", PATHS)
def test_an_error_in_a_stream_is_told_as_vllm_tells_it(
    path: str, gateway: ScriptedGateway, loop: asyncio.Runner, by_vllm: Callable[[bool], None], monkeypatch: Any
) -> None:
    monkeypatch.setattr(time, "time", lambda: CREATED)
    script = Script(pieces=[("a", 1), ("b", 1)], end=DeadlineExceededError("late", reason="DEADLINE_EXCEEDED"))
    found = {}
    for theirs in (False, True):
        by_vllm(theirs)
        found[theirs] = loop.run(gateway.body(path, request(path), script))
    assert found[False] == found[True]
    assert b'"code": "DEADLINE_EXCEEDED"' in found[False]
    assert found[False].endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("path", PATHS)
def test_a_refusal_before_the_first_token_has_its_status(
    path: str, gateway: ScriptedGateway, loop: asyncio.Runner
) -> None:
    gateway.client.script = Script(end=QueueFullError("full", reason="QUEUE_FULL"))
    sent = Sent()
    fields = request(path)
    loop.run(gateway.answer(path, fields, Received(fields), sent))
    assert sent.status == 429
    assert b"QUEUE_FULL" in sent.body


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_leaves_lets_go_of_its_request(path: str, gateway: ScriptedGateway, loop: asyncio.Runner) -> None:
    async def leave() -> bool:
        gateway.client.script = Script(pieces=[("a", 1)] * 10_000)
        fields = request(path)
        received, sent = Received(fields), Sent()
        answering = asyncio.create_task(gateway.answer(path, fields, received, sent))
        while sent.parts < 3:
            await asyncio.sleep(0)
        received.gone.set()
        await answering
        return gateway.client.started[-1].left

    assert loop.run(leave())


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_does_not_read_pauses_its_request_and_loses_nothing(
    path: str, gateway: ScriptedGateway, loop: asyncio.Runner
) -> None:
    async def read_late() -> bytes:
        gateway.client.script = Script(pieces=[("x" * 50_000, 1)] * 20)
        fields = request(path)
        sent = Sent()
        sent.open.clear()
        before = len(gateway.client.started)
        answering = asyncio.create_task(gateway.answer(path, fields, Received(fields), sent))
        while len(gateway.client.started) == before or not gateway.client.started[-1].paused:
            await asyncio.sleep(0)
        sent.open.set()
        await answering
        return sent.body

    assert loop.run(read_late()).count(b"x" * 50_000) == 20


def test_plain_requests_get_no_response_objects_and_others_do(
    gateway: ScriptedGateway, loop: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.entrypoints.openai.chat_completion import serving

    made: list[dict[str, Any]] = []
    message = serving.DeltaMessage

    def counted(**fields: Any) -> Any:
        made.append(fields)
        return message(**fields)

    monkeypatch.setattr(serving, "DeltaMessage", counted)
    path = "/v1/chat/completions"
    script = Script(pieces=[("a", 1)])
    loop.run(gateway.body(path, request(path), script))
    assert made == []
    loop.run(gateway.body(path, request(path, return_token_ids=True), script))
    assert made


@pytest.mark.parametrize("path", PATHS)
def test_a_plain_request_is_sent_as_any_other(
    path: str, gateway: ScriptedGateway, loop: asyncio.Runner, by_vllm: Callable[[bool], None]
) -> None:
    fields = {"cache_salt": "salt", "seed": 3, "stop": ["x"], "sage": {"priority": "high", "request_id": "mine"}}
    sent = []
    for theirs in (False, True):
        by_vllm(theirs)
        loop.run(gateway.body(path, request(path, **fields), Script(pieces=[("a", 1)])))
        sent.append(gateway.client.started[-1].options)
    assert sent[0] == sent[1]
    assert (sent[0]["cache_salt"], sent[0]["request_id"]) == ("salt", "mine")


def test_a_call_keeps_no_more_of_what_was_asked_than_tells_that_it_is_not_plain(
    gateway: ScriptedGateway, loop: asyncio.Runner
) -> None:
    async def kept() -> int:
        path = "/v1/completions"
        fields = request(path, prompt=["a", "b", "c", "d"])
        gateway.client.script = Script(pieces=[("a", 1)])
        await gateway.answer(path, fields, Received(fields), Sent())
        return len(current_call().asked)

    assert loop.run(kept()) == 2


@pytest.mark.parametrize("path", PATHS)
def test_events_keep_their_order_in_a_server_that_logs_its_answers(
    path: str, loop: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "true")
    logging = loop.run(scripted_gateway(tmp_path))
    body = loop.run(logging.body(path, request(path), Script(pieces=[("first", 1), ("second", 1)])))
    assert 0 < body.index(b"first") < body.index(b"second") < body.index(b"[DONE]")
    assert body.endswith(b"data: [DONE]\n\n")
