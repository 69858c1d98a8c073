"""Images whose pixels would fill the gateway's memory are refused before they are decoded."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.pictures import png
from tests.unit.gateway.fleet_of_models import ListedModels, model
from tests.unit.gateway.http_client import call
from tests.unit.gateway.test_front_door import door_of
from tests.unit.gateway.written_media import asked, chat_image

PLACE = "messages[0].content[2]"


def pictures(count: int) -> dict[str, Any]:
    return {"model": "m", **asked(*[chat_image(png(8_192, 4_096))] * count)}


async def test_images_with_too_many_pixels_together_are_refused() -> None:
    fleet = ListedModels(model(most_images=16))
    door = await door_of(fleet)
    answered = await call(door, "POST", "/v1/chat/completions", pictures(3))
    assert (answered.status, answered.error["param"], fleet.calls) == (400, PLACE, [])
    assert "has 8192 x 4096 pixels, with those before it 100663296; the limit is 67108864" in answered.error["message"]
    await call(door, "POST", "/v1/chat/completions", pictures(2))
    assert len(fleet.calls) == 1


@pytest.mark.parametrize(
    ("side", "words"), [(5_800, "has 5800 x 5800 pixels"), (65_000, "has far too many pixels")], ids=["many", "bomb"]
)
async def test_an_image_of_too_many_pixels_is_refused(side: int, words: str) -> None:
    fleet = ListedModels(model(most_images=16))
    body = {"model": "m", **asked(chat_image(png(side, side)))}
    answered = await call(await door_of(fleet), "POST", "/v1/chat/completions", body)
    assert (answered.status, fleet.calls) == (400, [])
    assert f"messages[0].content[0]: {words}; the limit of an image is 33554432" in answered.error["message"]
