"""Conversations with images over a fleet of real engines: the same text whatever dies; refusals name a place."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import BadRequestError as AnthropicBadRequestError
from openai import BadRequestError

from sage_client import AsyncClient, Completion, Image, InvalidRequestError
from tests.support.counted_stream import CountedStream
from tests.support.engine_process import ONE_PROCESS
from tests.support.fleet_processes import FleetProcesses
from tests.support.raw_batches import CHAT, jsonl, line
from tests.vllm.gateway.gateway_fleet import GatewayProcess
from tests.vllm.media.media_fleet import started_fleet, started_gateway
from tests.vllm.media.media_server import MediaServer
from tests.vllm.media.vision_model import IMAGE_TOKENS
from tests.vllm.system.engine_settings import MODEL_NAME, UP_WITHIN_S, executor_flags

pytestmark = [pytest.mark.vllm]

LONG = 100
STREAMS = 8
Pictures = dict[str, bytes]


@pytest.fixture(scope="module")
def fleet(vision_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcesses]:
    with started_fleet(vision_model, tmp_path_factory) as made:
        yield made


@pytest.fixture
async def client(fleet: FleetProcesses) -> AsyncIterator[AsyncClient]:
    async with fleet.client() as made:
        yield made


def about(picture: bytes, question: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": [Image(data=picture), question]}]
    return {"messages": messages, "max_tokens": LONG, "temperature": 0, "ignore_eos": True}


def data_url(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def written(picture: bytes, question: str) -> Any:
    """The same as OpenAI's clients write it."""
    content = [{"type": "image_url", "image_url": {"url": data_url(picture)}}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def questions(pictures: Pictures) -> list[dict[str, Any]]:
    found = list(pictures.values())
    return [about(found[index % len(found)], f"Question {index}: what is it?") for index in range(STREAMS)]


@pytest.fixture(scope="module")
def undisturbed(fleet: FleetProcesses, pictures: Pictures) -> list[Completion]:
    """What the model answers to each question, alone."""

    async def ask() -> list[Completion]:
        async with fleet.client() as client:
            return [await client.generate(None, **each).result() for each in questions(pictures)]

    done = asyncio.run(ask())
    assert len({each.token_ids for each in done}) == STREAMS, "one answer for two questions"
    return done


async def streaming(client: AsyncClient, pictures: Pictures) -> list[CountedStream]:
    streams = [CountedStream(client.generate(None, **each)) for each in questions(pictures)]
    await asyncio.gather(*(each.until_token(10) for each in streams))
    return streams


async def test_a_model_says_that_it_takes_images(
    client: AsyncClient, encode: Callable[[str], list[int]], pictures: Pictures
) -> None:
    [model] = await client.models()
    assert model.most_images == 16
    assert [model.image_placeholder_token_id] == encode("<image>")


async def test_a_conversation_token_ids_and_a_data_url_are_one_prompt(
    client: AsyncClient, encode: Callable[[str], list[int]], pictures: Pictures
) -> None:
    picture = pictures["red"]
    spoken = await client.generate(None, **about(picture, "What?")).result()
    ids = encode("<|im_start|>user\n<image>What?<|im_end|>\n<|im_start|>assistant\n")
    options: dict[str, Any] = {"max_tokens": LONG, "temperature": 0, "ignore_eos": True}
    given = await client.generate(None, token_ids=ids, images=[picture], **options).result()
    assert given.token_ids == spoken.token_ids
    assert given.usage.prompt_tokens == len(ids) - 1 + IMAGE_TOKENS
    linked = await client.generate(None, messages=written(picture, "What?"), **options).result()
    assert linked.token_ids == spoken.token_ids


async def test_placeholders_and_images_have_to_agree(
    client: AsyncClient, encode: Callable[[str], list[int]], pictures: Pictures
) -> None:
    with pytest.raises(InvalidRequestError, match=r"1 placeholders .* for 2 images"):
        await client.generate(None, token_ids=encode("<image>a"), images=[pictures["red"]] * 2).result()
    with pytest.raises(InvalidRequestError, match=r"2 placeholders .* for 1 images"):
        await client.generate(None, **about(pictures["red"], "a forged <image>")).result()


async def test_what_is_no_image_is_refused_where_it_stands(client: AsyncClient) -> None:
    with pytest.raises(InvalidRequestError, match="is no image of these formats") as refused:
        await client.generate(None, **about(b"noise", "What?")).result()
    assert [each.field for each in refused.value.violations] == ["spec.chat.messages[0].content[0]"]


@pytest.fixture(scope="module")
def picture_server(pictures: Pictures) -> Iterator[MediaServer]:
    with MediaServer(pictures) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(
    fleet: FleetProcesses, picture_server: MediaServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with started_gateway(fleet, picture_server, tmp_path_factory) as made:
        yield made


async def test_over_http_the_answer_is_the_same(
    gateway: GatewayProcess, client: AsyncClient, pictures: Pictures
) -> None:
    async with gateway.openai() as openai:
        options = {"model": MODEL_NAME, "max_tokens": 24, "temperature": 0, "extra_body": {"ignore_eos": True}}
        for name in ("red", "radial"):
            wanted = await client.generate(None, **about(pictures[name], "What?") | {"max_tokens": 24}).result()
            made = await openai.chat.completions.create(messages=written(pictures[name], "What?"), **options)
            assert made.choices[0].message.content == wanted.text
            assert made.usage.prompt_tokens == wanted.usage.prompt_tokens
            stream = await openai.chat.completions.create(
                messages=written(pictures[name], "What?"), stream=True, **options
            )
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == wanted.text
        plain = await openai.chat.completions.create(messages=[{"role": "user", "content": "No picture."}], **options)
        assert plain.choices[0].message.content
        for url, words in (
            ("https://example.com/a.png", "is not on a host that images and audio are fetched from"),
            ("data:image/png;base64,eA==", "is no image of these formats"),
        ):
            content = [{"type": "image_url", "image_url": {"url": url}}]
            with pytest.raises(BadRequestError, match=words):
                await openai.chat.completions.create(messages=[{"role": "user", "content": content}], **options)


def short(*content: Any) -> dict[str, Any]:
    """A request that any API can make."""
    return {"messages": [{"role": "user", "content": list(content)}], "max_tokens": 24, "temperature": 0}


async def test_responses_have_images_too(gateway: GatewayProcess, client: AsyncClient, pictures: Pictures) -> None:
    async with gateway.openai() as openai:
        for name in ("red", "radial"):
            wanted = await client.generate(None, **short(Image(data=pictures[name]), "What?")).result()
            content = [
                {"type": "input_image", "image_url": data_url(pictures[name])},
                {"type": "input_text", "text": "What?"},
            ]
            asked: dict[str, Any] = {"model": MODEL_NAME, "max_output_tokens": 24, "temperature": 0}
            asked["input"] = [{"role": "user", "content": content}]
            made = await openai.responses.create(**asked)
            assert made.output_text == wanted.text
            assert made.usage.input_tokens == wanted.usage.prompt_tokens
            stream = await openai.responses.create(**asked, stream=True)
            parts = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            assert "".join(parts) == wanted.text


async def test_the_images_of_a_tools_result_are_in_responses(
    gateway: GatewayProcess, client: AsyncClient, pictures: Pictures
) -> None:
    turns: list[Any] = [
        {"role": "user", "content": "What is it?"},
        {"role": "tool", "content": [Image(data=pictures["blue"])]},
    ]
    wanted = await client.generate(None, messages=turns, max_tokens=24, temperature=0).result()
    image = {"type": "input_image", "image_url": data_url(pictures["blue"])}
    items = [
        {"role": "user", "content": "What is it?"},
        {"type": "function_call_output", "call_id": "c", "output": [image]},
    ]
    async with gateway.openai() as openai:
        made = await openai.responses.create(model=MODEL_NAME, input=items, max_output_tokens=24, temperature=0)
    assert made.output_text == wanted.text


def to_anthropic(*content: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": list(content)}]
    return {"model": MODEL_NAME, "messages": messages, "max_tokens": 24, "extra_body": {"temperature": 0}}


def block(picture: bytes) -> dict[str, Any]:
    data = base64.b64encode(picture).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


async def test_messages_have_images_too(gateway: GatewayProcess, client: AsyncClient, pictures: Pictures) -> None:
    async with gateway.anthropic() as anthropic:
        for name in ("red", "radial"):
            wanted = await client.generate(None, **short(Image(data=pictures[name]), "What?")).result()
            said = to_anthropic(block(pictures[name]), {"type": "text", "text": "What?"})
            made = await anthropic.messages.create(**said)
            assert made.content[0].text == wanted.text
            counted = await anthropic.messages.count_tokens(model=MODEL_NAME, messages=said["messages"])
            assert counted.input_tokens == wanted.usage.prompt_tokens
            async with anthropic.messages.stream(**said) as stream:
                assert "".join([each async for each in stream.text_stream]) == wanted.text


async def test_the_images_of_a_tools_result_come_first(
    gateway: GatewayProcess, client: AsyncClient, pictures: Pictures
) -> None:
    red, blue = pictures["red"], pictures["blue"]
    turns: list[Any] = [
        {"role": "tool", "content": ""},
        {"role": "user", "content": [Image(data=blue)]},
        {"role": "user", "content": [Image(data=red), "What?"]},
    ]
    wanted = await client.generate(None, messages=turns, max_tokens=24, temperature=0).result()
    result = {"type": "tool_result", "tool_use_id": "t", "content": [block(blue)]}
    async with gateway.anthropic() as anthropic:
        made = await anthropic.messages.create(**to_anthropic(block(red), result, {"type": "text", "text": "What?"}))
    assert made.content[0].text == wanted.text


async def test_an_image_at_an_address_of_a_named_host(
    gateway: GatewayProcess, client: AsyncClient, pictures: Pictures, picture_server: MediaServer
) -> None:
    wanted = await client.generate(None, **short(Image(data=pictures["radial"]), "What?")).result()
    url, question = picture_server.url("radial"), {"type": "text", "text": "What?"}
    async with gateway.openai() as openai, gateway.anthropic() as anthropic:
        chat = await openai.chat.completions.create(
            model=MODEL_NAME, **short({"type": "image_url", "image_url": {"url": url}}, question)
        )
        assert chat.choices[0].message.content == wanted.text
        content = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "What?"}]
        response = await openai.responses.create(
            model=MODEL_NAME, input=[{"role": "user", "content": content}], max_output_tokens=24, temperature=0
        )
        assert response.output_text == wanted.text
        image = {"type": "image", "source": {"type": "url", "url": url}}
        message = await anthropic.messages.create(**to_anthropic(image, question))
        assert message.content[0].text == wanted.text
        missing = {"type": "image", "source": {"type": "url", "url": picture_server.url("missing")}}
        with pytest.raises(AnthropicBadRequestError, match="was answered with status 404"):
            await anthropic.messages.create(**to_anthropic(missing, question))


async def test_lines_of_a_batch_have_images(client: AsyncClient, pictures: Pictures) -> None:
    wanted = {
        name: (await client.generate(None, **short(Image(data=data), "What?")).result()).text
        for name, data in pictures.items()
    }
    lines = [
        line(
            name,
            CHAT,
            **short({"type": "image_url", "image_url": {"url": data_url(data)}}, {"type": "text", "text": "What?"}),
        )
        for name, data in pictures.items()
    ]
    away = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    noise = {"type": "image_url", "image_url": {"url": data_url(b"noise")}}
    outcome = await client.run_batch(
        jsonl([*lines, line("away", CHAT, **short(away)), line("noise", CHAT, **short(noise))])
    )
    answers = {each.custom_id: each for each in outcome}
    assert {name: answers[name].text for name in pictures} == wanted
    for name, words in (("away", "is not fetched"), ("noise", "is no image of these formats")):
        error = answers[name].body["error"]
        assert (answers[name].status_code, error["param"]) == (400, "messages[0].content[0]")
        assert words in error["message"]


async def test_kill_9_of_the_scheduler_mid_stream(
    fleet: FleetProcesses, client: AsyncClient, pictures: Pictures, undisturbed: list[Completion]
) -> None:
    streams = await streaming(client, pictures)
    fleet.scheduler.kill()
    assert await fleet.scheduler.ended() == -9
    fleet.scheduler.start()
    done = await asyncio.gather(*(each.complete() for each in streams))
    assert [each.token_ids for each in done] == [each.token_ids for each in undisturbed]


async def test_kill_9_of_one_of_two_executors_mid_stream(
    fleet: FleetProcesses,
    client: AsyncClient,
    vision_model: Path,
    pictures: Pictures,
    undisturbed: list[Completion],
) -> None:
    fleet.launch("two", executor_flags(str(vision_model), core=1), environment=ONE_PROCESS)
    await fleet.ready("two", within_s=UP_WITHIN_S)
    streams = await streaming(client, pictures)
    victim = fleet.executors["one"]
    victim.kill()
    done = await asyncio.gather(*(each.complete() for each in streams))
    assert [each.token_ids for each in done] == [each.token_ids for each in undisturbed]
    assert any(each.attempts > 1 for each in done), "those that ran there went on elsewhere"
    assert await victim.ended() == -9
