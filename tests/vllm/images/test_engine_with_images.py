"""A real engine's answers about images: those of vLLM asked directly, and clear refusals."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
import pytest_asyncio

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.starting import VllmEngineFactory
from executor_svc.runtime.engine_port import EngineImage, EngineRequest, InvalidRequestError, Sampling
from tests.vllm.images.vision_model import IMAGE_TOKENS

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="session")]

SETTINGS = VllmSettings(
    dtype="float32", enforce_eager=True, max_running=4, max_model_len=512, kv_cache_bytes=64 << 20, cpu_cores="0"
)
TOKENS = 24
Encode = Callable[[str], list[int]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engine(vision_model: Path) -> AsyncIterator[VllmEngine]:
    factory = VllmEngineFactory(ModelSettings(model=str(vision_model), served_name="vision"), SETTINGS)
    with patch.dict(os.environ):  # an engine sets variables that executors of the same test run must not inherit
        engine = await factory.start(lambda *report: None)
        yield engine
        await engine.shutdown()


def request(name: str, prompt: Sequence[int], images: Sequence[bytes], **more: object) -> EngineRequest:
    found = tuple(EngineImage(data=each, digest=hashlib.sha256(each).hexdigest()) for each in images)
    return EngineRequest(
        engine_request_id=name,
        prompt_token_ids=prompt,
        sampling=Sampling(temperature=0.0, max_tokens=TOKENS, ignore_eos=True),
        images=found,
        image_tokens=len(found) * (IMAGE_TOKENS - 1),
        **more,  # type: ignore[arg-type]
    )


async def tokens_of(engine: VllmEngine, wanted: EngineRequest) -> list[int]:
    return [token async for output in engine.generate(wanted) for token in output.token_ids]


async def asked_directly(engine: VllmEngine, name: str, prompt: Sequence[int], image: bytes) -> list[int]:
    """What vLLM makes of a picture that its caller opened, without a digest."""
    from io import BytesIO

    from PIL import Image
    from vllm import SamplingParams

    opened = Image.open(BytesIO(image)).convert("RGB")
    given = {"prompt_token_ids": list(prompt), "multi_modal_data": {"image": [opened]}}
    params = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True)
    found: list[int] = []
    async for result in engine._llm.generate(given, params, f"direct/{name}"):
        found = list(result.outputs[0].token_ids)
    return found


async def test_it_says_how_it_takes_images(engine: VllmEngine, encode: Encode) -> None:
    takes = engine.facts.image_input
    assert takes is not None
    assert [takes.placeholder_token_id] == encode("<image>")
    assert takes.most_tokens == IMAGE_TOKENS
    assert takes.most_images >= 16


async def test_the_same_tokens_as_vllm_asked_directly(
    engine: VllmEngine, encode: Encode, pictures: dict[str, bytes]
) -> None:
    prompt = encode("<|im_start|>user\n<image>What is it?<|im_end|>\n<|im_start|>assistant\n")
    answers = {}
    for name, picture in pictures.items():
        answers[name] = await tokens_of(engine, request(name, prompt, [picture]))
        assert answers[name] == await asked_directly(engine, name, prompt, picture), name
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
