"""Our own options over HTTP, and our errors in OpenAI's form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import openai as openai_package
import pytest

from sage_client import AsyncClient, AsyncStream, InstanceState, Priority, QueueFullError, RequestState
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.vllm.gateway.gateway_fleet import MODEL, SIMULATED, GatewayProcess

pytestmark = [pytest.mark.vllm]

CHAT: Any = [{"role": "user", "content": "Tell me a story."}]


async def test_options_reach_the_scheduler(openai: Any, client: AsyncClient) -> None:
    sage = {"priority": "high", "session": "talk", "ttft_target": 3.0, "request_id": "options-1", "tenant": "team"}
    raw = await openai.with_raw_response.chat.completions.create(
        model=MODEL, messages=CHAT, max_tokens=3, extra_body={"sage": sage}
    )
    assert raw.headers["x-request-id"] == "options-1"
    assert raw.headers["x-sage-instance"] in ("one", "two")
    assert raw.headers["x-sage-policy"] == "fifo"
    explained = await client.explain("options-1", tenant="team")
    assert explained.priority is Priority.HIGH


async def test_options_may_be_headers(openai: Any, client: AsyncClient) -> None:
    await openai.chat.completions.create(
        model=MODEL,
        messages=CHAT,
        max_tokens=3,
        extra_headers={"x-sage-priority": "background", "x-request-id": "headers-1"},
    )
    assert (await client.explain("headers-1")).priority is Priority.BACKGROUND


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_that_passes_is_a_timeout(openai: Any, stream: bool) -> None:
    with pytest.raises(openai_package.APIStatusError) as caught:
        await openai.chat.completions.create(
            model=MODEL, messages=CHAT, max_tokens=5, stream=stream, extra_body={"sage": {"deadline": 0.000001}}
        )
    assert caught.value.status_code in (408, 429)
    assert caught.value.body["code"] in ("DEADLINE_EXCEEDED", "OVERLOADED")


async def test_a_failure_in_a_stream_is_an_error_event(http: Any) -> None:
    body = {
        "model": MODEL,
        "prompt": "x",
        "max_tokens": 4000,
        "ignore_eos": True,
        "stream": True,
        "sage": {"deadline": 0.5},
    }
    answered = await http.post("/v1/completions", json=body)
    events = [line for line in answered.text.splitlines() if line]
    assert answered.status_code == 200
    assert '"code": "DEADLINE_EXCEEDED"' in events[-2]
    assert events[-1] == "data: [DONE]"


async def test_a_field_of_the_contract_at_fault_is_named(openai: Any) -> None:
    with pytest.raises(openai_package.BadRequestError) as caught:
        await openai.completions.create(model=MODEL, prompt="x", max_tokens=3, extra_body={"stop_token_ids": [10**9]})
    assert caught.value.body["param"] == "stop_token_ids"


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"priority": 3}, "priority"),
        ({"kv_transfer_params": {"a": 1}}, "kv_transfer_params"),
        ({"sage": {"deadline": "soon"}}, "sage.deadline"),
    ],
)
async def test_what_cannot_be_done_is_refused(openai: Any, extra: Any, param: str) -> None:
    with pytest.raises(openai_package.BadRequestError) as caught:
        await openai.completions.create(model=MODEL, prompt="x", max_tokens=3, extra_body=extra)
    assert caught.value.body["param"] == param


async def test_a_prompt_that_is_too_long_is_refused(openai: Any) -> None:
    with pytest.raises(openai_package.BadRequestError):
        await openai.completions.create(model=MODEL, prompt="word " * 50_000, max_tokens=3)


async def test_an_unknown_model_is_not_found(openai: Any) -> None:
    with pytest.raises(openai_package.NotFoundError):
        await openai.chat.completions.create(model="other", messages=CHAT)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_frees_what_it_held(http: Any, client: AsyncClient, stream: bool) -> None:
    name = f"gone-{stream}"
    body = {"model": MODEL, "prompt": "x", "max_tokens": 4000, "ignore_eos": True, "stream": stream}
    request = http.build_request("POST", "/v1/completions", json={**body, "sage": {"request_id": name}})
    if stream:
        answered = await http.send(request, stream=True)
        async for _ in answered.aiter_lines():
            break
        await answered.aclose()
    else:
        request.extensions["timeout"] = {"read": 0.5, "connect": 5.0, "write": 5.0, "pool": 5.0}
        with pytest.raises(httpx.ReadTimeout):
            await http.send(request)

    async def cancelled() -> bool:
        return bool((await client.explain(name)).state is RequestState.CANCELLED)

    async def free() -> bool:
        view = await client.list_instances()
        return all((i.running, i.assigned, i.kv_used_tokens) == (0, 0, 0) for i in view.instances)

    await eventually(cancelled, within_s=10.0, what="the request to be cancelled")
    await eventually(free, within_s=10.0, what="its KV to be freed")


async def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    flags = ["--policy", "fifo", "--queue.limit-per-model", "1"]
    async with FleetProcesses(tmp_path, flags) as fleet:
        fleet.launch("one", [*SIMULATED, "--engine.simulated.max-running", "1"])
        await fleet.ready("one")
        served = GatewayProcess(fleet, tmp_path).serving(MODEL)
        async with served as gateway, gateway.openai() as openai, fleet.client() as client:
            running = await as_many_as_are_taken(client)
            for stream in (False, True):
                with pytest.raises(openai_package.RateLimitError) as full:
                    await openai.completions.create(model=MODEL, prompt="x", max_tokens=3, stream=stream)
                assert full.value.body["code"] == "QUEUE_FULL"
                assert int(full.value.response.headers["retry-after"]) >= 1
            for each in running:
                await each.aclose()

            fleet.executors["one"].kill()
            await fleet.until("one", InstanceState.LOST, within_s=30.0)
            with pytest.raises(openai_package.InternalServerError) as caught:
                await openai.completions.create(model=MODEL, prompt="x", max_tokens=3)
            assert caught.value.status_code == 503
            assert caught.value.body["code"] == "NO_INSTANCE"
            assert "retry-after" in caught.value.response.headers
            async with gateway.http() as http:

                async def unhealthy() -> bool:
                    return bool((await http.get("/health")).status_code == 503)

                await eventually(unhealthy, within_s=15.0, what="the gateway to say that it is not healthy")


async def as_many_as_are_taken(client: AsyncClient) -> list[AsyncStream]:
    """Start long requests until one is refused: one runs, some may wait at the engine, one in the queue."""
    taken: list[AsyncStream] = []
    for _ in range(10):
        stream = client.generate("x", max_tokens=8000, ignore_eos=True)
        try:
            await anext(stream)
        except QueueFullError:
            return taken
        taken.append(stream)
    raise AssertionError("the queue was never full")


LONG: Any = {
    "/v1/responses": {"input": "x", "max_output_tokens": 4000},
    "/v1/messages": {"messages": CHAT, "max_tokens": 4000},
}


@pytest.mark.parametrize("path", LONG)
async def test_a_refused_stream_has_its_status(http: Any, path: str) -> None:
    body = {"model": MODEL, "stream": True, "sage": {"deadline": 0.000001}, **LONG[path]}
    answered = await http.post(path, json=body)
    assert answered.status_code in (408, 429)
    assert answered.json()["error"]["code"] in ("DEADLINE_EXCEEDED", "OVERLOADED")


@pytest.mark.parametrize("path", LONG)
async def test_a_stream_that_fails_ends_with_its_error(http: Any, path: str) -> None:
    body = {"model": MODEL, "stream": True, "sage": {"deadline": 0.2}, **LONG[path], "temperature": 0}
    answered = await http.post(path, json=body)
    assert answered.status_code == 200
    *_, name, data = [line for line in answered.text.splitlines() if line]
    assert name == "event: error"
    assert "the deadline passed" in data


async def test_a_request_says_what_it_took_if_asked(openai: Any) -> None:
    options: Any = {"model": MODEL, "messages": CHAT, "max_tokens": 4, "extra_body": {"sage": {"report": True}}}
    raw = await openai.with_raw_response.chat.completions.create(**options)
    assert float(raw.headers["x-sage-cost"]) >= 0
    assert {each.split(";")[0] for each in raw.headers["server-timing"].split(", ")} >= {"queue", "ttft", "total"}

    *chunks, last = [chunk async for chunk in await openai.chat.completions.create(**options, stream=True)]
    assert (last.choices, last.sage["instance"] in ("one", "two")) == ([], True)
    assert last.sage["requests"][0]["timings"]["total_s"] > 0
    assert chunks


async def test_streams_of_other_apis_say_it_too(openai: Any, gateway: GatewayProcess) -> None:
    extra: Any = {"sage": {"report": True}}
    stream = await openai.responses.create(model=MODEL, input="x", max_output_tokens=4, stream=True, extra_body=extra)
    *_, last = [event async for event in stream]
    assert (last.type, len(last.sage["request_ids"])) == ("sage.report", 1)
    async with (
        gateway.anthropic() as anthropic,
        anthropic.messages.stream(model=MODEL, max_tokens=4, messages=CHAT, extra_body=extra) as messages,
    ):
        assert await messages.get_final_text()
    async with gateway.http() as http:
        body = {"model": MODEL, "max_tokens": 4, "messages": CHAT, "stream": True, **extra}
        answered = await http.post("/v1/messages", json=body)
    assert [line for line in answered.text.splitlines() if line.startswith("event: ")][-1] == "event: sage.report"


IMAGE: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


async def test_an_image_is_refused_by_its_place(openai: Any) -> None:
    with pytest.raises(openai_package.BadRequestError) as caught:
        await openai.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [IMAGE]}])
    assert caught.value.body["param"] == "messages[0].content[0]"


async def test_a_salted_prompt_is_taken(openai: Any) -> None:
    made = await openai.chat.completions.create(
        model=MODEL, messages=CHAT, max_tokens=3, extra_body={"cache_salt": "mine"}
    )
    assert made.choices[0].message.content


async def test_an_option_that_no_operator_allows_is_refused_by_name(openai: Any) -> None:
    with pytest.raises(openai_package.BadRequestError) as caught:
        await openai.completions.create(model=MODEL, prompt="x", max_tokens=3, extra_body={"vllm_xargs": {"a": 1}})
    assert caught.value.body["param"] == "vllm_xargs"
    assert "'a'" in caught.value.body["message"]
