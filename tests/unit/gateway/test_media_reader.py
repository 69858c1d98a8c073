"""The front door hands images and audio on in their order, fetches those it may, and says of others why not."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from sage_client import AudioInput, Image
from sage_gateway import media_reader
from sage_gateway.asgi import Message
from sage_gateway.conversation_media import CHAT, COUNT_TOKENS, MESSAGES, RESPONSES, BadPart, Fetch, Media, MediaPart
from sage_gateway.front_door import FrontDoor
from sage_gateway.media_memory import HeldMedia, MediaMemory
from sage_gateway.model_catalogue import ModelCatalogue
from sage_media.audio_samples import samples_of
from tests.support.sounds import tone, wav
from tests.unit.gateway.fleet_of_models import ListedModels, model
from tests.unit.gateway.http_client import Answered, call
from tests.unit.gateway.test_front_door import check_caller
from tests.unit.gateway.written_media import asked, chat_audio, chat_image, in_messages, in_responses, picture, url

X = picture(b"x")
ADDRESS = {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}}
BODIES: dict[str, Any] = {
    CHAT: asked(chat_image(X)),
    RESPONSES: {"input": [{"role": "user", "content": [in_responses(X)]}]},
    MESSAGES: {"messages": [{"role": "user", "content": [in_messages(X)]}]},
    COUNT_TOKENS: {"messages": [{"role": "user", "content": [in_messages(X)]}]},
}


class FakeFetch:
    def __init__(self, bad: str = "") -> None:
        self.asked: list[str] = []
        self._bad = bad

    async def __call__(self, parts: Sequence[MediaPart], held: HeldMedia) -> Sequence[Media]:
        self.asked += [each.url for each in parts]
        if self._bad:
            raise BadPart(parts[0].place, self._bad)
        held.take(10)
        return [Image(data=picture(each.url.encode()), mime_type="image/png") for each in parts]


async def door_of(fleet: ListedModels, fetch: Fetch | None = None, memory: MediaMemory | None = None) -> FrontDoor:
    catalogue = ModelCatalogue(fleet, fleet.build, fleet.embedding)
    await catalogue.ask()
    await catalogue.build()
    return FrontDoor(catalogue, lambda: (b"text/plain", b""), "0.32.0", check_caller, fetch=fetch, memory=memory)


async def post(path: str, body: Any, *, takes: int = 16, fetch: Fetch | None = None, token: str = "") -> Any:
    """Return the answer, and the calls that reached the model."""
    fleet = ListedModels(model(most_images=takes))
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answered = await call(await door_of(fleet, fetch), "POST", path, {"model": "m", **body}, headers)
    return answered, fleet.calls


def refused(answered: Answered, calls: Any) -> str:
    assert (answered.status, calls) == (400, [])
    return f"{answered.error['param']}: {answered.error['message']}"


@pytest.mark.parametrize("path", BODIES)
async def test_the_images_of_a_conversation_reach_the_model(path: str) -> None:
    answered, calls = await post(path, BODIES[path])
    assert answered.status == 200
    assert [each.data for each in calls[0].media] == [X]
    assert answered.json["body"] == {"model": "m", **BODIES[path]}


async def test_images_of_tools_reach_the_model_in_the_order_of_the_prompt() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": [in_messages(picture(b"of the tool"))]}
    body = {"messages": [{"role": "user", "content": [in_messages(picture(b"beside it")), result]}]}
    answered, calls = await post(MESSAGES, body)
    assert answered.status == 200
    assert [each.data for each in calls[0].media] == [picture(b"of the tool"), picture(b"beside it")]


async def test_an_image_of_a_tools_result_has_the_detail_that_vllms_server_wants() -> None:
    image = {"type": "input_image", "image_url": url(X)}
    answered, calls = await post(RESPONSES, {"input": [{"type": "function_call_output", "output": [image]}]})
    assert [each.data for each in calls[0].media] == [X]
    assert answered.json["body"]["input"][0]["output"] == [{**image, "detail": "auto"}]


@pytest.mark.parametrize("path", BODIES)
async def test_a_model_for_text_refuses_images_on_each_route(path: str) -> None:
    words = refused(*await post(path, BODIES[path], takes=0))
    assert "content[0] is an image; model 'm' takes text only" in words


async def test_images_that_would_be_left_out_are_refused() -> None:
    body = {"input": [{"role": "assistant", "content": [in_responses(X)]}]}
    words = refused(*await post(RESPONSES, body))
    assert words.startswith("input[0].content[0]: input[0].content[0] is an image; this server sends")
    assert "'input_image' in messages of users and results of tools" in words
    assert "images may be sent to /v1/chat/completions" in refused(*await post("/tokenize", asked(chat_image(X))))


@pytest.mark.parametrize("name", ["mm_processor_kwargs", "media_io_kwargs"])
async def test_fields_that_executors_are_not_told_of_are_refused_with_images(name: str) -> None:
    body = {**BODIES[CHAT], name: {"image": {"size": 1}}}
    assert refused(*await post(CHAT, body)).startswith(f"{name}: {name} is not supported")
    assert (await post(CHAT, {name: {"size": 1}, "messages": []}))[0].status == 200


async def test_images_that_are_too_large_together_are_refused_by_the_place_of_the_first_one_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(media_reader, "MEDIA_LIMIT_BYTES", 2 * len(X))
    assert (await post(CHAT, asked(*[chat_image(X)] * 2)))[0].status == 200
    words = refused(*await post(CHAT, asked(*[chat_image(X)] * 4)))
    assert words.startswith("messages[0].content[2]: ")
    assert f"3 images have {3 * len(X)} bytes together; the limit is {2 * len(X)}" in words


async def test_an_address_is_not_fetched_unless_a_host_is_allowed() -> None:
    words = refused(*await post(CHAT, asked(ADDRESS)))
    assert words.startswith(
        "messages[0].content[0]: messages[0].content[0]: 'https://images.example/a.png' is not fetched"
    )


async def test_an_image_that_was_fetched_is_sent_and_is_what_vllms_server_reads() -> None:
    fetch = FakeFetch()
    answered, calls = await post(CHAT, asked(chat_image(X), ADDRESS, chat_image(picture(b"y"))), fetch=fetch)
    assert [each.data for each in calls[0].media] == [X, picture(b"https://images.example/a.png"), picture(b"y")]
    assert fetch.asked == ["https://images.example/a.png"]
    [_, image, _] = answered.json["body"]["messages"][0]["content"]
    assert image["image_url"]["url"] == url(picture(b"https://images.example/a.png"))


async def test_what_cannot_be_fetched_is_refused_by_its_place() -> None:
    words = refused(*await post(CHAT, asked(chat_image(X), ADDRESS), fetch=FakeFetch(bad="is gone")))
    assert words == "messages[0].content[1]: messages[0].content[1]: is gone"


async def test_nothing_is_fetched_for_strangers_or_for_a_request_that_is_refused() -> None:
    fetch = FakeFetch()
    answered, calls = await post(CHAT, asked(ADDRESS), fetch=fetch, token="unknown")
    assert (answered.status, calls) == (401, [])
    refused(*await post(CHAT, asked(ADDRESS), fetch=fetch, takes=0))
    refused(*await post(CHAT, asked(ADDRESS, {"type": "input_audio"}), fetch=fetch))
    refused(*await post(CHAT, asked(ADDRESS, chat_image(X, "svg+xml")), fetch=fetch))
    assert "is image 2; the limit is 1" in refused(*await post(CHAT, asked(ADDRESS, ADDRESS), fetch=fetch, takes=1))
    assert fetch.asked == []


@pytest.mark.parametrize("path", BODIES)
async def test_images_of_strangers_are_not_read(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_reader, "held_content", None)
    answered, calls = await post(path, BODIES[path], token="unknown")
    assert (answered.status, calls) == (401, [])


@pytest.mark.parametrize(
    "data", [b"noise", b"P6 1 1 255\nxyz", b"%!PS-Adobe-3.0 EPSF-3.0\n", b""], ids=["noise", "PPM", "EPS", "empty"]
)
@pytest.mark.parametrize("path", BODIES)
async def test_what_is_of_none_of_the_formats_is_refused_whatever_its_type_says(path: str, data: bytes) -> None:
    part = {CHAT: chat_image, RESPONSES: in_responses}.get(path, in_messages)
    name = "input" if path == RESPONSES else "messages"
    words = refused(*await post(path, {name: [{"role": "user", "content": [part(X), part(data)]}]}))
    place = f"{name}[0].content[1]"
    assert words == f"{place}: {place}: is no image of these formats: GIF, JPEG, PNG, WEBP"


async def test_a_name_for_an_image_is_left_out() -> None:
    body = asked({**chat_image(X), "uuid": "of all callers"})
    answered, calls = await post(CHAT, body)
    assert [each.data for each in calls[0].media] == [X]
    assert answered.json["body"] == {"model": "m", **asked(chat_image(X))}


async def test_a_fetch_ends_with_its_client() -> None:
    events: list[str] = []
    body = json.dumps({"model": "m", **asked(ADDRESS)}).encode()
    messages: list[Message] = [{"type": "http.request", "body": body}]
    began = asyncio.Event()

    async def fetch(parts: Sequence[MediaPart], held: HeldMedia) -> Sequence[Media]:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")
        raise AssertionError

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await began.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        events.append(message["type"])

    fleet = ListedModels(model(most_images=1))
    door = await door_of(fleet, fetch)
    await door({"type": "http", "method": "POST", "path": CHAT, "headers": []}, receive, send)
    assert (events, fleet.calls) == (["cancelled"], [])


HEARS = AudioInput(placeholder_token_id=7, most_tokens=50, most_clips=2, most_seconds=1.5, rate_hz=16_000)
CLIP = wav(tone(440, 0.5, 8_000), 8_000)


async def hear(*parts: Any, hears: AudioInput | None = HEARS, takes: int = 16, **more: Any) -> tuple[Answered, Any]:
    fleet = ListedModels(model(most_images=takes, audio_input=hears))
    answered = await call(await door_of(fleet, **more), "POST", CHAT, {"model": "m", **asked(*parts)}, {})
    return answered, fleet.calls


async def test_audio_is_sent_as_it_came_and_read_by_vllms_server_at_the_models_rate() -> None:
    answered, calls = await hear(chat_image(X), chat_audio(CLIP))
    assert [each.data for each in calls[0].media] == [X, CLIP]
    [_, part] = answered.json["body"]["messages"][0]["content"]
    assert (part["type"], part["input_audio"]["format"]) == ("input_audio", "wav")
    [samples] = samples_of([base64.b64decode(part["input_audio"]["data"])], 16_000, 1.5)
    assert len(samples) == 8_000


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (chat_audio(b"noise"), "cannot be decoded"),
        (chat_audio(wav(tone(440, 2.0))), "is longer than 1.5 s"),
        (chat_audio(CLIP, "aac"), "is an audio clip of type 'audio/aac'"),
        ({"type": "input_audio", "input_audio": {}}, "has no data and format"),
        ({"type": "audio_url", "audio_url": {"url": "https://a.example/a.wav"}}, "is not fetched"),
    ],
    ids=["noise", "long", "type", "nothing", "address"],
)
async def test_audio_that_cannot_be_taken_is_refused_by_its_place(part: Any, words: str) -> None:
    said = refused(*await hear(chat_audio(CLIP), part))
    assert said.startswith("messages[0].content[1]: ")
    assert words in said


async def test_a_model_that_takes_none_refuses_audio_with_what_it_takes() -> None:
    words = refused(*await hear(chat_audio(CLIP), hears=None))
    assert words.endswith("messages[0].content[0] is audio; model 'm' takes text and images")
    assert refused(*await hear(chat_audio(CLIP), hears=None, takes=0)).endswith("takes text only")
    refused(*await hear(chat_image(X), takes=0))


async def test_a_gateway_without_the_libraries_refuses_audio_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_reader, "missing_libraries", lambda: ("soxr",))
    words = refused(*await hear(chat_audio(CLIP)))
    assert "this gateway lacks soxr: pip install 'sage-control-plane[audio]'" in words
    assert (await hear(chat_image(X)))[0].status == 200


async def test_what_was_fetched_and_decoded_is_held_while_the_request_runs_and_bounded_over_all() -> None:
    memory = MediaMemory(16_100)  # half a second of 16 bits at the model's rate is 16,044 bytes
    answered, [_] = await hear(chat_audio(CLIP), memory=memory)
    assert (answered.status, memory.taken) == (200, 0)
    answered, calls = await hear(chat_audio(CLIP), ADDRESS, chat_audio(CLIP), memory=memory, fetch=FakeFetch())
    assert (answered.status, calls, memory.taken) == (503, [], 0)
    assert answered.headers["retry-after"] == "2"
    assert "the images and audio of running requests have 10 bytes; the limit is 16100" in answered.error["message"]


async def test_one_request_finds_no_room_while_another_holds_it() -> None:
    memory = MediaMemory(25)
    with memory.held() as another:
        another.take(20)
        answered, calls = await hear(ADDRESS, memory=memory, fetch=FakeFetch())
        assert (answered.status, calls, memory.taken) == (503, [], 20)
    assert (await hear(ADDRESS, memory=memory, fetch=FakeFetch()))[0].status == 200


async def test_only_so_many_requests_have_their_audio_decoded_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def decoded(clips: Sequence[bytes], rate_hz: int, most_seconds: float) -> list[Any]:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        pair.wait(30)
        with lock:
            now -= 1
        return samples_of(clips, rate_hz, most_seconds)

    pair = threading.Barrier(2)  # two go on together
    monkeypatch.setattr(media_reader, "samples_of", decoded)
    monkeypatch.setattr(media_reader, "DECODED_AT_ONCE", 2)
    fleet = ListedModels(model(audio_input=HEARS))
    door = await door_of(fleet)
    asking = (call(door, "POST", CHAT, {"model": "m", **asked(chat_audio(CLIP))}, {}) for _ in range(4))
    assert [each.status for each in await asyncio.gather(*asking)] == [200] * 4
    assert most == 2
