"""Conversations with images over a fleet of real engines: the same text whatever dies; refusals name a place."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError

from sage_client import AsyncClient, Completion, Image, InvalidRequestError
from tests.support.counted_stream import CountedStream
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.vllm.gateway.gateway_fleet import GatewayProcess
from tests.vllm.images.vision_model import IMAGE_TOKENS
from tests.vllm.system.engine_settings import MODEL_NAME, UP_WITHIN_S, executor_flags

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

LONG = 100
STREAMS = 8
Pictures = dict[str, bytes]


@pytest.fixture(scope="session")
def session_fleet(vision_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcesses]:
    flags = ["--policy", "fifo", "--state-dir", str(tmp_path_factory.mktemp("state"))]
    fleet = FleetProcesses(tmp_path_factory.mktemp("fleet"), flags, listen=f"127.0.0.1:{free_port()}")

    async def start() -> None:
        await fleet.start()
        fleet.launch("one", executor_flags(str(vision_model), core=0))
        await fleet.ready("one", within_s=UP_WITHIN_S)

    try:
        asyncio.run(start())
        yield fleet
    finally:
        asyncio.run(fleet.leave())


@pytest.fixture
async def client(session_fleet: FleetProcesses) -> AsyncIterator[AsyncClient]:
    async with session_fleet.client() as made:
        yield made


def about(picture: bytes, question: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": [Image(data=picture), question]}]
    return {"messages": messages, "max_tokens": LONG, "temperature": 0, "ignore_eos": True}


def written(picture: bytes, question: str) -> Any:
    """The same as OpenAI's clients write it."""
    url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def questions(pictures: Pictures) -> list[dict[str, Any]]:
    found = list(pictures.values())
    return [about(found[index % len(found)], f"Question {index}: what is it?") for index in range(STREAMS)]


@pytest.fixture(scope="session")
def undisturbed(session_fleet: FleetProcesses, pictures: Pictures) -> list[Completion]:
    """What the model answers to each question, alone."""

    async def ask() -> list[Completion]:
        async with session_fleet.client() as client:
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


async def test_over_http_the_answer_is_the_same(
    session_fleet: FleetProcesses, client: AsyncClient, pictures: Pictures, tmp_path: Path
) -> None:
    gateway = GatewayProcess(session_fleet, tmp_path)
    async with gateway.serving(MODEL_NAME), gateway.openai() as openai:
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
            ("https://example.com/a.png", "is not fetched"),
            ("data:image/png;base64,eA==", "cannot identify"),
        ):
            content = [{"type": "image_url", "image_url": {"url": url}}]
            with pytest.raises(BadRequestError, match=words):
                await openai.chat.completions.create(messages=[{"role": "user", "content": content}], **options)


async def test_kill_9_of_the_scheduler_mid_stream(
    session_fleet: FleetProcesses, client: AsyncClient, pictures: Pictures, undisturbed: list[Completion]
) -> None:
    streams = await streaming(client, pictures)
    session_fleet.scheduler.kill()
    assert await session_fleet.scheduler.ended() == -9
    session_fleet.scheduler.start()
    done = await asyncio.gather(*(each.complete() for each in streams))
    assert [each.token_ids for each in done] == [each.token_ids for each in undisturbed]


async def test_kill_9_of_one_of_two_executors_mid_stream(
    session_fleet: FleetProcesses,
    client: AsyncClient,
    vision_model: Path,
    pictures: Pictures,
    undisturbed: list[Completion],
) -> None:
    session_fleet.launch("two", executor_flags(str(vision_model), core=1))
    await session_fleet.ready("two", within_s=UP_WITHIN_S)
    streams = await streaming(client, pictures)
    victim = session_fleet.executors["one"]
    victim.kill()
    done = await asyncio.gather(*(each.complete() for each in streams))
    assert [each.token_ids for each in done] == [each.token_ids for each in undisturbed]
    assert any(each.attempts > 1 for each in done), "those that ran there went on elsewhere"
    assert await victim.ended() == -9
