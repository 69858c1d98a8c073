"""Images whose pixels would fill the gateway's memory are refused before they are decoded."""

from __future__ import annotations

from typing import Any

from tests.unit.engine.vllm.test_image_input import png
from tests.unit.gateway.fleet_of_models import ListedModels, model
from tests.unit.gateway.http_client import call
from tests.unit.gateway.test_front_door import door_of
from tests.unit.gateway.written_images import asked, chat_image


def pictures(count: int) -> dict[str, Any]:
    return {"model": "m", **asked(*[chat_image(png(8_192, 4_096).data)] * count)}


async def test_images_with_too_many_pixels_together_are_refused() -> None:
    fleet = ListedModels(model(most_images=16))
    door = await door_of(fleet)
    answered = await call(door, "POST", "/v1/chat/completions", pictures(3))
    assert (answered.status, answered.error["param"], fleet.calls) == (400, "messages", [])
    assert "the 3 images have 100663296 pixels together; the limit is 67108864" in answered.error["message"]
    await call(door, "POST", "/v1/chat/completions", pictures(2))
    assert len(fleet.calls) == 1
