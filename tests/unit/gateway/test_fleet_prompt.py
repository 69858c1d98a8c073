"""A conversation that vLLM rendered with images and audio becomes one placeholder for each again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sage_client import Audio, Image, InvalidRequestError
from sage_gateway.vllm_server.fleet_prompt import FleetPrompt, with_media
from sage_media.kinds import MediaKind

PLACEHOLDER = 9
TAKES = {MediaKind.IMAGE: PLACEHOLDER}
ONE, TWO = Image(data=b"one"), Image(data=b"two")


def rendered(token_ids: list[int], **places: list[tuple[int, int]]) -> Any:
    found = {kind: [SimpleNamespace(offset=at, length=size) for at, size in each] for kind, each in places.items()}
    return {"type": "multimodal", "prompt_token_ids": token_ids, "mm_placeholders": found}


def test_each_image_is_one_placeholder_in_its_place() -> None:
    prompt = rendered([1, 7, 8, 8, 7, 2, 7, 8, 7, 3], image=[(1, 4), (6, 3)])
    made = with_media("text", prompt, [ONE, TWO], TAKES)
    assert made.sent == [1, PLACEHOLDER, 2, PLACEHOLDER, 3]
    assert made.token_ids == prompt["prompt_token_ids"], "usage counts what the engine computes"
    assert made.for_sdk() == {"token_ids": made.sent, "images": [ONE, TWO]}


def test_clips_and_images_each_have_their_own_placeholder() -> None:
    prompt = rendered([1, 7, 7, 2, 8, 8, 8, 3], image=[(1, 2)], audio=[(4, 3)])
    clip = Audio(data=b"clip")
    made = with_media(None, prompt, [clip, ONE], {**TAKES, MediaKind.AUDIO: 5})
    assert made.sent == [1, PLACEHOLDER, 2, 5, 3]
    assert made.for_sdk() == {"token_ids": made.sent, "images": [ONE], "audio": [clip]}


@pytest.mark.parametrize(
    ("places", "images", "takes"),
    [
        ({"image": [(0, 1)]}, [ONE, TWO], TAKES),
        ({"audio": [(0, 1)]}, [ONE], TAKES),
        ({"image": [(0, 1)], "video": [(1, 1)]}, [ONE], TAKES),
        ({"image": [(0, 1)]}, [ONE], {}),
    ],
    ids=["another number", "audio", "video beside it", "a model for text"],
)
def test_what_does_not_agree_is_refused(places: Any, images: list[Image], takes: dict[MediaKind, int]) -> None:
    with pytest.raises(InvalidRequestError, match="messages"):
        with_media(None, rendered([5, 6], **places), images, takes)


def test_a_prompt_without_images_is_token_ids_alone() -> None:
    assert FleetPrompt(text=None, token_ids=[1, 2], sent=[1, 2]).for_sdk() == {"token_ids": [1, 2]}
