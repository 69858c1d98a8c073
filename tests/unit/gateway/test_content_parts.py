"""Images, audio, videos and files are refused, and named."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sage_gateway import content_parts
from sage_gateway.content_parts import BadPart, images_of, not_text
from sage_wire.protocol import IMAGES_LIMIT_BYTES
from tests.unit.gateway.fleet_of_models import ListedModels, model
from tests.unit.gateway.http_client import call
from tests.unit.gateway.test_front_door import door_of

TEXT: Any = {"type": "text", "text": "a"}
IMAGE: Any = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}


def said(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"messages": [said(TEXT)], "input": "x"}, None),
        ({"messages": [{"role": "user", "content": "image_url"}]}, None),
        ({"messages": "x", "input": [["x"], "y", 3, None]}, None),
        ({"messages": [said(TEXT), said(TEXT, IMAGE)]}, ("messages[1].content[1]", "an image")),
        ({"messages": [said({"type": "input_audio", "input_audio": {}})]}, ("messages[0].content[0]", "audio")),
        ({"input": [said({"type": "input_image", "image_url": "x"})]}, ("input[0].content[0]", "an image")),
        ({"input": [{"type": "input_file", "file_id": "x"}]}, ("input[0]", "a file")),
        (
            {"messages": [said({"type": "tool_result", "content": [{"type": "image"}]})]},
            ("messages[0].content[0].content[0]", "an image"),
        ),
        ({"messages": [said({"type": [1]})]}, None),
        ({"messages": [said({"image_url": "http://127.0.0.1:1/x.png"})]}, ("messages[0].content[0]", "an image")),
        ({"messages": [said({"type": "text", "text": "a", "image_url": None})]}, None),
        ({"messages": [said({**TEXT, "uuid": "u", "audio_url": "http://x/"})]}, ("messages[0].content[0]", "audio")),
    ],
)
def test_the_first_part_that_is_not_text_is_found(fields: Any, found: Any) -> None:
    assert not_text(fields) == found


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/tokenize"])
async def test_a_conversation_with_an_image_is_refused(path: str) -> None:
    fleet = ListedModels(model())
    answered = await call(await door_of(fleet), "POST", path, {"model": "m", "messages": [said(TEXT, IMAGE)]})
    assert (answered.status, answered.error["param"], fleet.calls) == (400, "messages[0].content[1]", [])
    assert "is an image" in answered.error["message"]


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}


def asked(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [*parts]}]}


def test_images_in_the_body_come_in_their_order() -> None:
    gif = {"type": "image_url", "image_url": {"url": "data:image/gif;base64,eXo="}}
    body = asked(PICTURE, {"type": "text", "text": "See"}, gif)
    assert [(each.data, each.mime_type) for each in images_of(body)] == [(b"x", "image/png"), (b"yz", "image/gif")]
    assert not_text(body, images=True) is None
    assert not_text(body) == ("messages[0].content[0]", "an image")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ({"url": "http://169.254.169.254/latest"}, "is not fetched"),
        ({"url": "file:///etc/passwd"}, "is not fetched"),
        ({"url": 5}, "has no URL"),
        ({}, "has no URL"),
        (None, "has no URL"),
    ],
    ids=["http", "file", "number", "nothing", "null"],
)
def test_what_is_not_in_the_body_is_refused_by_its_place(url: Any, words: str) -> None:
    with pytest.raises(BadPart, match=words) as bad:
        images_of(asked({"type": "text", "text": "See"}, {"type": "image_url", "image_url": url}))
    assert bad.value.place == "messages[0].content[1]"


def test_one_image_too_many_is_refused_by_its_place() -> None:
    with pytest.raises(BadPart, match="is image 17") as bad:
        images_of(asked(*[PICTURE] * 17))
    assert bad.value.place == "messages[0].content[16]"


def test_images_that_are_too_large_together_are_refused_by_the_place_of_the_first_one_too_many() -> None:
    third = IMAGES_LIMIT_BYTES // 3 + 1
    content = base64.b64encode(bytes(third)).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{content}"}}
    assert len(images_of(asked(picture, picture))) == 2
    with pytest.raises(
        BadPart, match=rf"3 images have {3 * third} bytes together; the limit is {IMAGES_LIMIT_BYTES}"
    ) as bad:
        images_of(asked(picture, picture, picture))
    assert bad.value.place == "messages[0].content[2]"


async def test_the_answer_to_images_that_are_too_large_together_names_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_parts, "IMAGES_LIMIT_BYTES", 1)
    fleet = ListedModels(model(most_images=16))
    body = {"model": "m", **asked(PICTURE, PICTURE)}
    answered = await call(await door_of(fleet), "POST", "/v1/chat/completions", body)
    assert (answered.status, answered.error["param"], fleet.calls) == (400, "messages[0].content[1]", [])
    assert "2 images have 2 bytes together; the limit is 1" in answered.error["message"]


@pytest.mark.parametrize("part", [{"image_url": "http://x/"}, {**TEXT, "uuid": "u", "image_url": "http://x/"}])
def test_an_address_in_a_part_of_another_type_is_found_beside_an_image(part: Any) -> None:
    assert not_text(asked(PICTURE, part), images=True) == ("messages[0].content[1]", "an image")


def test_audio_beside_an_image_is_still_found() -> None:
    assert not_text(asked(PICTURE, {"type": "input_audio"}), images=True) == ("messages[0].content[1]", "audio")
