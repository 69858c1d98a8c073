"""Conversations with audio over a fleet of real engines: the same text by each way, whatever dies."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError

from sage_client import AsyncClient, Audio, Completion, Image, InvalidRequestError
from tests.support.counted_stream import CountedStream
from tests.support.engine_process import ONE_PROCESS
from tests.support.fleet_processes import FleetProcesses
from tests.support.raw_batches import CHAT, jsonl, line
from tests.support.sounds import encoded, tone, wav
from tests.vllm.gateway.gateway_fleet import GatewayProcess
from tests.vllm.media.audio_model import MOST_TOKENS, RATE_HZ, SECONDS
from tests.vllm.media.media_fleet import started_fleet, started_gateway
from tests.vllm.media.media_server import MediaServer
from tests.vllm.system.engine_settings import MODEL_NAME, UP_WITHIN_S, executor_flags

pytestmark = [pytest.mark.vllm]

LONG = 100
STREAMS = 8
Clips = dict[str, bytes]


@pytest.fixture(scope="module")
def fleet(audio_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcesses]:
    with started_fleet(audio_model, tmp_path_factory) as made:
        # It starts while the others are asked.
        made.launch("two", executor_flags(str(audio_model), core=1), environment=ONE_PROCESS)
        yield made


@pytest.fixture
async def client(fleet: FleetProcesses) -> AsyncIterator[AsyncClient]:
    async with fleet.client() as made:
        yield made


@pytest.fixture(scope="module")
def clips(sounds: dict[str, Any]) -> Clips:
    """By name; "mp3" has another rate."""
    return {name: wav(samples) for name, samples in sounds.items()} | {
        "mp3": encoded(tone(660, 1.0, 44_100), 44_100, "MP3")
    }


@pytest.fixture(scope="module")
def server(clips: Clips) -> Iterator[MediaServer]:
    with MediaServer(clips, "audio/x-wav") as made:
        yield made


@pytest.fixture(scope="module")
def gateway(
    fleet: FleetProcesses, server: MediaServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with started_gateway(fleet, server, tmp_path_factory) as made:
        yield made


def about(clip: bytes, question: str, length: int = LONG) -> dict[str, Any]:
    messages = [{"role": "user", "content": [Audio(data=clip), question]}]
    return {"messages": messages, "max_tokens": length, "temperature": 0, "ignore_eos": True}


def input_audio(clip: bytes, name: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(clip).decode(), "format": name}}


def written(part: dict[str, Any], question: str = "What?") -> Any:
    """A conversation as OpenAI's clients write it."""
    return [{"role": "user", "content": [part, {"type": "text", "text": question}]}]


async def test_a_model_says_that_it_takes_audio(
    client: AsyncClient, encode_for_audio: Callable[[str], list[int]]
) -> None:
    [model] = await client.models()
    assert model.most_images == 0
    takes = model.audio_input
    assert takes is not None
    assert [takes.placeholder_token_id] == encode_for_audio("<|AUDIO|>")
    assert (takes.most_tokens, takes.most_clips, takes.most_seconds, takes.rate_hz) == (
        MOST_TOKENS,
        16,
        SECONDS,
        RATE_HZ,
    )


async def test_a_conversation_token_ids_and_an_openai_part_are_one_prompt(
    client: AsyncClient, encode_for_audio: Callable[[str], list[int]], clips: Clips
) -> None:
    clip = clips["low"]
    spoken = await client.generate(None, **about(clip, "What?")).result()
    ids = encode_for_audio("<|im_start|>user\n<|AUDIO|>What?<|im_end|>\n<|im_start|>assistant\n")
    options: dict[str, Any] = {"max_tokens": LONG, "temperature": 0, "ignore_eos": True}
    given = await client.generate(None, token_ids=ids, audio=[clip], **options).result()
    assert given.token_ids == spoken.token_ids
    assert given.usage.prompt_tokens == len(ids) - 1 + MOST_TOKENS, "the most that the clip may take"
    linked = await client.generate(None, messages=written(input_audio(clip)), **options).result()
    assert linked.token_ids == spoken.token_ids


@pytest.mark.parametrize(
    ("clip", "words"),
    [(b"noise", "cannot be decoded"), (wav(tone(440, SECONDS + 1, 8_000), 8_000), "is longer than 30 s")],
    ids=["noise", "long"],
)
async def test_audio_that_cannot_be_taken_is_refused_where_it_stands(
    client: AsyncClient, clip: bytes, words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words) as refused:
        await client.generate(None, **about(clip, "What?")).result()
    assert [each.field for each in refused.value.violations] == ["spec.chat.messages[0].content[0]"]


async def test_images_are_refused_with_what_the_model_takes(client: AsyncClient) -> None:
    with pytest.raises(InvalidRequestError, match="is an image; model 'tiny' takes text and audio"):
        await client.generate(None, messages=[{"role": "user", "content": [Image(data=b"x"), "What?"]}]).result()


async def test_over_http_the_answer_is_the_same(
    gateway: GatewayProcess, client: AsyncClient, clips: Clips, server: MediaServer
) -> None:
    options = {"model": MODEL_NAME, "max_tokens": 24, "temperature": 0, "extra_body": {"ignore_eos": True}}
    async with gateway.openai() as openai:
        for name in ("low", "mp3"):
            wanted = await client.generate(None, **about(clips[name], "What?", 24)).result()
            written_part = input_audio(clips[name], "mp3" if name == "mp3" else "wav")
            away = {"type": "audio_url", "audio_url": {"url": server.url(name)}}
            for part in (written_part, away):
                made = await openai.chat.completions.create(messages=written(part), **options)
                assert made.choices[0].message.content == wanted.text
            most = wanted.usage.prompt_tokens - MOST_TOKENS
            assert most < made.usage.prompt_tokens < wanted.usage.prompt_tokens, "the gateway knows the clip's length"
            stream = await openai.chat.completions.create(messages=written(written_part), stream=True, **options)
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == wanted.text
        for part, words in (
            (input_audio(b"noise"), "cannot be decoded"),
            ({"type": "audio_url", "audio_url": {"url": "https://example.com/a.wav"}}, "is not on a host"),
            ({"type": "audio_url", "audio_url": {"url": server.url("missing")}}, "status 404"),
            ({"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}, "takes text and audio"),
        ):
            with pytest.raises(BadRequestError, match=words) as refused:
                await openai.chat.completions.create(messages=written(part), **options)
            assert refused.value.param == "messages[0].content[0]"


async def test_lines_of_a_batch_have_audio(client: AsyncClient, clips: Clips) -> None:
    wanted = (await client.generate(None, **about(clips["high"], "What?", 24)).result()).text
    said: dict[str, Any] = {"max_tokens": 24, "temperature": 0, "ignore_eos": True}
    lines = [
        line("high", CHAT, messages=written(input_audio(clips["high"])), **said),
        line("noise", CHAT, messages=written(input_audio(b"noise")), **said),
    ]
    answers = {each.custom_id: each for each in await client.run_batch(jsonl(lines))}
    assert answers["high"].text == wanted
    error = answers["noise"].body["error"]
    assert (answers["noise"].status_code, error["param"]) == (400, "messages[0].content[0]")


async def test_kill_9_of_one_of_two_executors_mid_stream(
    fleet: FleetProcesses, client: AsyncClient, clips: Clips
) -> None:
    await fleet.ready("two", within_s=UP_WITHIN_S)
    names = [list(clips)[index % len(clips)] for index in range(STREAMS)]
    questions = [about(clips[name], f"Question {index}: what is it?") for index, name in enumerate(names)]
    undisturbed: list[Completion] = [await client.generate(None, **each).result() for each in questions]
    assert len({each.token_ids for each in undisturbed}) == STREAMS, "one answer for two questions"
    streams = [CountedStream(client.generate(None, **each)) for each in questions]
    await asyncio.gather(*(each.until_token(10) for each in streams))
    victim = fleet.executors["one"]
    victim.kill()
    done = await asyncio.gather(*(each.complete() for each in streams))
    assert [each.token_ids for each in done] == [each.token_ids for each in undisturbed]
    assert any(each.attempts > 1 for each in done), "those that ran there went on elsewhere"
    assert await victim.ended() == -9
