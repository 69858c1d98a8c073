"""Every route that docs/openai.md names answers, and what it answers is what the fleet generates."""

from __future__ import annotations

import json
from typing import Any

import openai as openai_package
import pytest

from sage_client import AsyncClient
from sage_gateway.vllm_version import check_vllm
from tests.support.eventually import eventually
from tests.vllm.gateway.gateway_fleet import ADAPTER, MODEL, VECTORS, GatewayProcess

pytestmark = [pytest.mark.vllm]

PROMPT = "Once upon a time"
CHAT: Any = [{"role": "user", "content": "Tell me a story."}]
WHOLE: Any = {"ignore_eos": True}


async def test_models_are_listed(openai: Any, client: AsyncClient) -> None:
    listed = {card.id: card async for card in openai.models.list()}
    assert set(listed) == {MODEL, VECTORS, ADAPTER}
    for each in await client.models():
        assert listed[each.name].max_model_len == each.max_model_len
    assert (await openai.models.retrieve(MODEL)).id == MODEL


async def test_an_adapter_is_a_model(openai: Any, client: AsyncClient) -> None:
    assert (await openai.models.retrieve(ADAPTER)).parent == MODEL
    options: Any = {"temperature": 0, "max_tokens": 12}
    texts = []
    for name in (MODEL, ADAPTER):
        adapter: Any = {} if name == MODEL else {"adapter": ADAPTER}
        wanted = await client.generate(PROMPT, model=MODEL, ignore_eos=True, **options, **adapter).result()
        made = await openai.completions.create(model=name, prompt=PROMPT, extra_body=WHOLE, **options)
        assert (made.choices[0].text, made.model) == (wanted.text, name)
        chat = await openai.chat.completions.create(model=name, messages=CHAT, extra_body=WHOLE, **options)
        assert chat.model == name
        texts.append(made.choices[0].text)
    assert texts[0] != texts[1]


async def test_an_adapter_that_is_added_at_run_time_is_a_model_until_it_is_removed(
    openai: Any, client: AsyncClient, gateway: GatewayProcess
) -> None:
    await client.add_adapter("legal", "org/legal", model=MODEL)
    await gateway.serves("legal")
    assert (await openai.models.retrieve("legal")).parent == MODEL
    options: Any = {"temperature": 0, "max_tokens": 12}
    wanted = await client.generate(PROMPT, model=MODEL, adapter="legal", ignore_eos=True, **options).result()
    made = await openai.completions.create(model="legal", prompt=PROMPT, extra_body=WHOLE, **options)
    assert (made.choices[0].text, made.model) == (wanted.text, "legal")
    chat = await openai.chat.completions.create(model="legal", messages=CHAT, extra_body=WHOLE, **options)
    assert chat.model == "legal"

    await client.remove_adapter("legal", model=MODEL)

    async def gone() -> bool:
        return "legal" not in {card.id async for card in openai.models.list()}

    await eventually(gone, within_s=30.0, what="the removed adapter to be no model", every_s=0.2)
    with pytest.raises(openai_package.NotFoundError):
        await openai.completions.create(model="legal", prompt=PROMPT, **options)
    assert {card.id async for card in openai.models.list()} == {MODEL, VECTORS, ADAPTER}


async def test_the_gateway_logs_what_it_serves(gateway: GatewayProcess) -> None:
    """A package that vLLM's server imports silences the root logger."""
    for name in (MODEL, VECTORS):
        await gateway.process.said(rf"sage_gateway.model_catalogue: model {name} is served", within_s=5.0)


async def test_a_completion_has_the_fleets_text(openai: Any, client: AsyncClient) -> None:
    wanted = await client.generate(PROMPT, model=MODEL, temperature=0, max_tokens=30, ignore_eos=True).result()
    made = await openai.completions.create(
        model=MODEL, prompt=PROMPT, temperature=0, max_tokens=30, extra_body={**WHOLE, "return_token_ids": True}
    )
    [choice] = made.choices
    assert (choice.text, choice.finish_reason) == (wanted.text, "length")
    assert choice.token_ids == list(wanted.token_ids)
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (wanted.usage.prompt_tokens, 30)


async def test_a_streamed_completion_is_the_same(openai: Any) -> None:
    options: Any = {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 40, "extra_body": WHOLE}
    whole = await openai.completions.create(**options)
    stream = await openai.completions.create(**options, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert chunks[-1].usage.completion_tokens == 40


async def test_a_conversation_is_rendered_by_the_models_template(openai: Any, client: AsyncClient) -> None:
    wanted = await client.generate(model=MODEL, messages=CHAT, temperature=0, max_tokens=20, ignore_eos=True).result()
    made = await openai.chat.completions.create(
        model=MODEL, messages=CHAT, temperature=0, max_tokens=20, extra_body=WHOLE
    )
    assert made.choices[0].message.content == wanted.text
    assert made.usage.prompt_tokens == wanted.usage.prompt_tokens


async def test_a_streamed_conversation_is_the_same(openai: Any) -> None:
    options: Any = {"model": MODEL, "messages": CHAT, "temperature": 0, "max_tokens": 40, "extra_body": WHOLE}
    whole = await openai.chat.completions.create(**options)
    stream = await openai.chat.completions.create(**options, stream=True)
    deltas = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(deltas) == whole.choices[0].message.content


async def test_a_stream_ends_with_one_done(http: Any) -> None:
    body = {"model": MODEL, "messages": CHAT, "max_tokens": 5, "stream": True, **WHOLE}
    answered = await http.post("/v1/chat/completions", json=body)
    events = [line for line in answered.text.splitlines() if line.startswith("data: ")]
    assert events.count("data: [DONE]") == 1
    assert events[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: ")) for line in events[:-1])


async def test_three_choices_are_three_seeds(openai: Any) -> None:
    options: Any = {"model": MODEL, "prompt": PROMPT, "max_tokens": 12, "extra_body": WHOLE, "temperature": 1.0}
    together = await openai.completions.create(**options, n=3, seed=5)
    alone = [await openai.completions.create(**options, seed=5 + i) for i in range(3)]
    assert [c.index for c in together.choices] == [0, 1, 2]
    assert [c.text for c in together.choices] == [each.choices[0].text for each in alone]
    assert together.usage.completion_tokens == 36


async def test_three_choices_stream_beside_each_other(openai: Any) -> None:
    options: Any = {"model": MODEL, "messages": CHAT, "max_tokens": 12, "extra_body": WHOLE, "n": 3, "seed": 5}
    whole = await openai.chat.completions.create(**options)
    texts = ["", "", ""]
    async for chunk in await openai.chat.completions.create(**options, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


async def test_several_prompts_are_several_choices(openai: Any) -> None:
    options: Any = {"model": MODEL, "temperature": 0, "max_tokens": 8, "extra_body": WHOLE}
    together = await openai.completions.create(**options, prompt=["a b", "c d"])
    alone = [await openai.completions.create(**options, prompt=each) for each in ("a b", "c d")]
    assert [c.text for c in together.choices] == [each.choices[0].text for each in alone]


async def test_token_ids_are_a_prompt(openai: Any, client: AsyncClient) -> None:
    wanted = await client.generate(
        model=MODEL, token_ids=[300, 301, 302], temperature=0, max_tokens=8, ignore_eos=True
    ).result()
    made = await openai.completions.create(
        model=MODEL, prompt=[300, 301, 302], temperature=0, max_tokens=8, extra_body=WHOLE
    )
    assert made.choices[0].text == wanted.text


async def test_log_probabilities(openai: Any, client: AsyncClient) -> None:
    wanted = await client.generate(
        PROMPT, model=MODEL, temperature=0, max_tokens=6, logprobs=2, ignore_eos=True
    ).result()
    made = await openai.completions.create(
        model=MODEL, prompt=PROMPT, temperature=0, max_tokens=6, logprobs=2, extra_body=WHOLE
    )
    found = made.choices[0].logprobs
    assert found.token_logprobs == pytest.approx([each[0].logprob for each in wanted.logprobs])
    assert "".join(found.tokens) == wanted.text
    assert all(len(each) == 2 for each in found.top_logprobs)

    chat = await openai.chat.completions.create(
        model=MODEL, messages=CHAT, temperature=0, max_tokens=4, logprobs=True, top_logprobs=3, extra_body=WHOLE
    )
    content = chat.choices[0].logprobs.content
    assert all(bytes(each.bytes).decode() == each.token for each in content)
    assert "".join(each.token for each in content) == chat.choices[0].message.content
    assert [len(each.top_logprobs) for each in content] == [3] * 4


async def test_beams_are_searched(openai: Any) -> None:
    """vLLM's server asks for one token of each beam at a time."""
    options: Any = {"model": MODEL, "prompt": PROMPT, "max_tokens": 4}
    found = await openai.completions.create(**options, n=2, extra_body={"use_beam_search": True, "ignore_eos": True})
    assert len({choice.text for choice in found.choices}) == 2


async def test_a_stop_string_ends_the_text(openai: Any) -> None:
    options: Any = {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 30, "extra_body": WHOLE}
    text = (await openai.completions.create(**options)).choices[0].text
    word = text.split()[10]
    stopped = (await openai.completions.create(**options, stop=[word])).choices[0]
    assert (stopped.text, stopped.finish_reason, stopped.stop_reason) == (text[: text.index(word)], "stop", word)


async def test_fields_beyond_openais(openai: Any) -> None:
    options: Any = {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 10}
    extra: Any = {**WHOLE, "return_token_ids": True}
    plain = (await openai.completions.create(**options, extra_body=extra)).choices[0]
    stop = plain.token_ids[4]
    stopped = (await openai.completions.create(**options, extra_body={**extra, "stop_token_ids": [stop]})).choices[0]
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop)
    banned = {str(plain.token_ids[0]): -100}
    other = (await openai.completions.create(**options, logit_bias=banned, extra_body=extra)).choices[0]
    assert other.token_ids[0] != plain.token_ids[0]
    await openai.completions.create(**options, extra_body={**extra, "min_p": 0.1, "top_k": 5, "min_tokens": 2})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_json_schema_is_kept_to(openai: Any, stream: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    made = await openai.chat.completions.create(
        model=MODEL, messages=CHAT, max_tokens=60, response_format=wanted, stream=stream
    )
    if stream:
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in made])
    else:
        text = made.choices[0].message.content
    assert isinstance(json.loads(text)["a"], int)


TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        },
    }
]


@pytest.mark.parametrize("chosen", ["auto", "required", {"type": "function", "function": {"name": "add"}}])
async def test_tools_need_a_parser(openai: Any, chosen: Any) -> None:
    """tests/vllm/gateway/test_real_engine.py has one."""
    with pytest.raises(openai_package.BadRequestError, match="tool-call-parser"):
        await openai.chat.completions.create(model=MODEL, messages=CHAT, max_tokens=60, tools=TOOLS, tool_choice=chosen)


async def test_a_structural_tag_reaches_the_scheduler(openai: Any) -> None:
    """The simulated engine has none, so that the refusal shows that it came there."""
    tag: Any = {"type": "structural_tag", "format": {"type": "const_string", "value": "x"}}
    with pytest.raises(openai_package.BadRequestError, match="structural_tag") as caught:
        await openai.chat.completions.create(model=MODEL, messages=CHAT, max_tokens=9, response_format=tag)
    assert caught.value.body["param"] == "response_format"


async def test_tokenize_and_detokenize(http: Any) -> None:
    found = (await http.post("/tokenize", json={"model": MODEL, "prompt": PROMPT})).json()
    assert found["count"] == len(found["tokens"])
    back = (await http.post("/detokenize", json={"model": MODEL, "tokens": found["tokens"]})).json()
    assert back["prompt"] == PROMPT
    rendered = (await http.post("/tokenize", json={"model": MODEL, "messages": CHAT})).json()
    assert rendered["count"] > 10


async def test_responses(openai: Any) -> None:
    made = await openai.responses.create(model=MODEL, input="Tell me a story.", max_output_tokens=12)
    assert made.output_text
    streamed = await openai.responses.create(model=MODEL, input="Tell me more.", max_output_tokens=12, stream=True)
    kinds = [event.type async for event in streamed]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")


async def test_messages_with_anthropics_client(gateway: GatewayProcess, openai: Any) -> None:
    async with gateway.anthropic() as anthropic:
        made = await anthropic.messages.create(model=MODEL, max_tokens=12, messages=CHAT)
        assert made.content[0].text
        assert made.usage.output_tokens <= 12
        async with anthropic.messages.stream(model=MODEL, max_tokens=12, messages=CHAT) as stream:
            text = "".join([each async for each in stream.text_stream])
        assert text
        counted = await anthropic.messages.count_tokens(model=MODEL, messages=CHAT)
        assert counted.input_tokens == made.usage.input_tokens + (made.usage.cache_read_input_tokens or 0)


async def test_health_version_and_metrics(http: Any) -> None:
    assert (await http.get("/health")).json() == {"status": "ready"}
    assert (await http.get("/version")).json()["version"] == check_vllm()
    page = (await http.get("/metrics")).text
    assert "http_requests_total" in page
