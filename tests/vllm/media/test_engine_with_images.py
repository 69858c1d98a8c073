"""A real engine's answers about images: those of vLLM asked directly, and clear refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.runtime.engine_port import EngineRequest, InvalidRequestError
from sage_media.kinds import MediaKind
from tests.vllm.media import asked_engine
from tests.vllm.media.asked_engine import asked_directly, tokens_of
from tests.vllm.media.vision_model import IMAGE_TOKENS

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

Encode = Callable[[str], list[int]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engine(vision_model: Path) -> AsyncIterator[VllmEngine]:
    async with asked_engine.started(vision_model, max_model_len=512) as engine:
        yield engine


def request(name: str, prompt: Sequence[int], images: Sequence[bytes], **more: Any) -> EngineRequest:
    return asked_engine.request(name, prompt, MediaKind.IMAGE, images, IMAGE_TOKENS, **more)


async def test_its_speed_was_measured_with_prompts_and_with_four_outputs_together(engine: VllmEngine) -> None:
    assert {0, 4} <= {each.decode_tokens for each in engine.facts.measured}


async def test_it_says_how_it_takes_images(engine: VllmEngine, encode: Encode) -> None:
    [takes] = engine.facts.media
    assert takes.kind is MediaKind.IMAGE
    assert [takes.placeholder_token_id] == encode("<image>")
    assert takes.most_tokens == IMAGE_TOKENS
    assert takes.most >= 16


async def test_the_same_tokens_as_vllm_asked_directly(
    engine: VllmEngine, encode: Encode, pictures: dict[str, bytes]
) -> None:
    prompt = encode("<|im_start|>user\n<image>What is it?<|im_end|>\n<|im_start|>assistant\n")
    answers = {}
    for name, picture in pictures.items():
        answers[name] = await tokens_of(engine, request(name, prompt, [picture]))
        opened = Image.open(BytesIO(picture)).convert("RGB")
        assert answers[name] == await asked_directly(engine, name, prompt, {"image": [opened]}), name
    assert len({tuple(each) for each in answers.values()}) == len(pictures), "the images count"


async def test_several_images_count_in_their_order(
    engine: VllmEngine, encode: Encode, pictures: dict[str, bytes]
) -> None:
    prompt = encode("<image> and <image> differ")
    red, blue = pictures["red"], pictures["blue"]
    one = await tokens_of(engine, request("one", prompt, [red, blue]))
    other = await tokens_of(engine, request("other", prompt, [blue, red]))
    assert one != other
    assert one == await tokens_of(engine, request("one-again", prompt, [red, blue]))


async def test_it_goes_on_after_an_output_history(
    engine: VllmEngine, encode: Encode, pictures: dict[str, bytes]
) -> None:
    assert engine.facts.keeps_output_history
    prompt = encode("<image>Go on: ")
    whole = await tokens_of(engine, request("whole", prompt, [pictures["radial"]]))
    rest = await tokens_of(engine, request("rest", prompt, [pictures["radial"]], output_history=whole[:9]))
    assert whole[9:] == rest


async def test_many_at_once_are_not_mixed_up(engine: VllmEngine, encode: Encode, pictures: dict[str, bytes]) -> None:
    prompt = encode("<image>Which one?")
    alone = {name: await tokens_of(engine, request(f"{name}-alone", prompt, [data])) for name, data in pictures.items()}
    together = await asyncio.gather(
        *(tokens_of(engine, request(f"{name}-together", prompt, [data])) for name, data in pictures.items())
    )
    assert dict(zip(pictures, together, strict=True)) == alone


async def test_what_is_no_image_is_refused_by_its_place(engine: VllmEngine, encode: Encode) -> None:
    with pytest.raises(InvalidRequestError, match="is no image of these formats") as refused:
        await tokens_of(engine, request("noise", encode("<image>What?"), [b"noise"]))
    assert refused.value.field_name == "images[0]"


async def test_an_image_that_breaks_off_is_refused(
    engine: VllmEngine, encode: Encode, pictures: dict[str, bytes]
) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be decoded"):
        await tokens_of(engine, request("short", encode("<image>What?"), [pictures["linear"][:200]]))


async def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    engine: VllmEngine, encode: Encode, pictures: dict[str, bytes]
) -> None:
    width, height = (20_000).to_bytes(4, "big"), (10_000).to_bytes(4, "big")
    huge = pictures["red"][:16] + width + height + pictures["red"][24:]
    with pytest.raises(InvalidRequestError, match=r"images\[0\]|pixels|is no image"):
        await tokens_of(engine, request("huge", encode("<image>What?"), [huge]))


async def test_a_placeholder_without_image_and_an_image_without_placeholder_are_refused(
    engine: VllmEngine, encode: Encode, pictures: dict[str, bytes]
) -> None:
    with pytest.raises(InvalidRequestError, match="for 0 placeholders"):
        await tokens_of(engine, request("none", encode("What?"), [pictures["red"]]))
