"""Images and audio are found in the conversations of each API, in the order in which they stand in the prompt."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sage_client import Audio, Image
from sage_gateway.conversation_media import (
    CHAT,
    COUNT_TOKENS,
    MESSAGES,
    RESPONSES,
    BadPart,
    MediaPart,
    held_content,
    media_parts,
)
from sage_media.kinds import MediaKind
from tests.unit.gateway.written_media import asked, chat_audio, chat_image, in_messages, in_responses, url

TEXT = {"type": "text", "text": "See"}


LIMITS = {MediaKind.IMAGE: 16, MediaKind.AUDIO: 3}


def parts_of(path: str, body: dict[str, Any], limits: dict[MediaKind, int] = LIMITS) -> tuple[MediaPart, ...]:
    return media_parts(path, body, limits)


def found(path: str, body: dict[str, Any]) -> list[tuple[str, bytes]]:
    return [(each.place, held_content(each).data) for each in parts_of(path, body)]


def test_images_of_a_chat_come_in_their_order() -> None:
    body = asked(chat_image(b"x"), TEXT, chat_image(b"yz", "gif"))
    assert found(CHAT, body) == [("messages[0].content[0]", b"x"), ("messages[0].content[2]", b"yz")]
    assert [held_content(each).mime_type for each in parts_of(CHAT, body)] == ["image/png", "image/gif"]


def test_audio_of_a_chat_stands_among_its_images() -> None:
    away = {"type": "audio_url", "audio_url": {"url": "https://a/x.wav"}}
    parts = parts_of(CHAT, asked(chat_audio(b"x", "mp3"), chat_image(b"y"), away))
    assert [(each.kind, each.is_address) for each in parts] == [
        *((MediaKind.AUDIO, False), (MediaKind.IMAGE, False), (MediaKind.AUDIO, True)),
    ]
    assert held_content(parts[0]) == Audio(data=b"x", mime_type="audio/mpeg")
    assert parts_of(CHAT, asked(chat_audio(b"x")), {MediaKind.AUDIO: 0}) == ()


def test_one_clip_too_many_is_refused_by_its_place() -> None:
    with pytest.raises(BadPart, match="is audio clip 4; the limit is 3") as bad:
        parts_of(CHAT, asked(chat_image(b"x"), *[chat_audio(b"x")] * 4))
    assert bad.value.place == "messages[0].content[4]"
    with pytest.raises(BadPart, match="together may be 16") as bad:
        parts_of(CHAT, asked(*[chat_image(b"x")] * 15, *[chat_audio(b"x")] * 2))
    assert bad.value.place == "messages[0].content[16]"


def test_audio_is_written_as_vllms_server_reads_it() -> None:
    body = asked({"type": "audio_url", "audio_url": {"url": "https://a/x.mp3"}})
    [away] = parts_of(CHAT, body)
    away.put(Audio(data=b"fetched", mime_type="audio/mpeg"))
    [here] = parts_of(CHAT, body)
    assert held_content(here) == Audio(data=b"fetched", mime_type="audio/mpeg")
    here.put_samples(b"samples")
    assert body == asked(chat_audio(b"samples"))


def test_images_of_responses_are_in_results_of_tools_and_in_messages_that_are_not_the_assistants() -> None:
    body = {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, in_responses(b"one")]},
            {"type": "message", "role": "assistant", "content": [in_responses(b"no")]},
            {"role": "developer", "content": [in_responses(b"two")]},
            {"type": "function_call_output", "call_id": "c", "output": [in_responses(b"three")]},
            {"type": "function_call_output", "call_id": "d", "output": "text"},
        ]
    }
    places = [("input[0].content[1]", b"one"), ("input[2].content[0]", b"two"), ("input[3].output[0]", b"three")]
    assert found(RESPONSES, body) == places
    assert found(RESPONSES, {"input": "text"}) == []


@pytest.mark.parametrize("path", [MESSAGES, COUNT_TOKENS])
def test_images_of_tools_come_before_those_beside_them(path: str) -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": [TEXT, in_messages(b"of the tool")]}
    turns = [
        {"role": "user", "content": [in_messages(b"first"), result]},
        {"role": "assistant", "content": [in_messages(b"no")]},
    ]
    places = [("messages[0].content[1].content[1]", b"of the tool"), ("messages[0].content[0]", b"first")]
    assert found(path, {"messages": turns}) == places


def test_other_routes_have_no_images() -> None:
    assert found("/tokenize", asked(chat_image(b"x"))) == []


@pytest.mark.parametrize(
    ("path", "part"),
    [
        *((CHAT, {"type": "image_url", "image_url": given}) for given in ({"url": 5}, {}, None, 5)),
        (CHAT, {"type": "audio_url", "audio_url": {}}),
        (RESPONSES, {"type": "input_image", "file_id": "file-1"}),
        (RESPONSES, {"type": "input_image", "image_url": None}),
        (MESSAGES, {"type": "image"}),
        (MESSAGES, {"type": "image", "source": {"type": "file", "file_id": "f"}}),
        (MESSAGES, {"type": "image", "source": {"type": "url"}}),
    ],
)
def test_a_part_without_an_image_is_refused_by_its_place(path: str, part: Any) -> None:
    name = "input" if path == RESPONSES else "messages"
    with pytest.raises(BadPart, match=r"has no (URL|source)") as bad:
        parts_of(path, {name: [{"role": "user", "content": [TEXT, part]}]})
    assert bad.value.place == f"{name}[0].content[1]"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("http://169.254.169.254/latest", "is not fetched"),
        ("file:///etc/passwd", "is not fetched"),
        ("data:image/png,x", "is not fetched"),
        ("data:image/png;base64,???", "is not base64"),
        ("data:image/png;base64,\N{BULLET}", "is not base64"),
        ("data:image/svg+xml;base64,eA==", "is an image of type 'image/svg\\+xml'"),
    ],
)
def test_what_the_url_does_not_hold_is_refused(given: str, words: str) -> None:
    [part] = parts_of(CHAT, asked({"type": "image_url", "image_url": {"url": given}}))
    with pytest.raises(BadPart, match=words):
        held_content(part)


def test_one_image_too_many_is_refused_by_its_place() -> None:
    with pytest.raises(BadPart, match="is image 17") as bad:
        parts_of(CHAT, asked(*[chat_image(b"x")] * 17))
    assert bad.value.place == "messages[0].content[16]"


@pytest.mark.parametrize(
    ("path", "name", "part"),
    [
        (CHAT, "messages", {"type": "image_url", "image_url": {"url": "https://a/x.png"}}),
        (RESPONSES, "input", {"type": "input_image", "image_url": "https://a/x.png"}),
        (MESSAGES, "messages", {"type": "image", "source": {"type": "url", "url": "https://a/x.png"}}),
    ],
)
def test_an_image_that_was_fetched_stands_in_the_body_in_the_place_of_its_address(
    path: str, name: str, part: Any
) -> None:
    body = {name: [{"role": "user", "content": [part]}]}
    [away] = parts_of(path, body)
    assert (away.is_address, away.url) == (True, "https://a/x.png")
    away.put(Image(data=b"fetched", mime_type="image/webp"))
    [here] = parts_of(path, body)
    assert (here.is_address, here.url) == (False, url(b"fetched", "webp"))
    assert base64.b64encode(b"fetched").decode() in here.url
