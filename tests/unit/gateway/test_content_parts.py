"""Images, audio, videos and files are refused, and named."""

from __future__ import annotations

from typing import Any

import pytest

from sage_gateway.content_parts import not_text
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
        (
            {"input": [{"type": "function_call_output", "output": [{"type": "input_image"}]}]},
            ("input[0].output[0]", "an image"),
        ),
        ({"system": [TEXT, {"type": "document"}]}, ("system[1]", "a file")),
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


@pytest.mark.parametrize("part", [{"image_url": "http://x/"}, {**TEXT, "uuid": "u", "image_url": "http://x/"}])
def test_an_address_in_a_part_of_another_type_is_found_beside_an_image(part: Any) -> None:
    body = {"messages": [said(IMAGE, part)]}
    assert not_text(body, {"messages[0].content[0]"}) == ("messages[0].content[1]", "an image")


def test_audio_beside_an_image_is_still_found() -> None:
    body = {"messages": [said(IMAGE, {"type": "input_audio"})]}
    assert not_text(body, {"messages[0].content[0]"}) == ("messages[0].content[1]", "audio")
