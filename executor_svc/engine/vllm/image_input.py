"""Finds out whether a started vLLM engine takes images, and makes vLLM's prompts with images."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from executor_svc.engine.vllm.errors import first_line
from executor_svc.runtime.engine_port import EngineImage, EngineRequest, ImageInput, InvalidRequestError
from sage_common.image_pixels import IMAGE_FORMATS, IMAGE_LIMIT_PIXELS, IMAGES_LIMIT_PIXELS

log = logging.getLogger(__name__)

_PLACEHOLDERS = ("image_token_id", "image_token_index")
"""Names that models' configurations have for the id of the token that stands for an image."""


def image_input_of(config: Any) -> ImageInput | None:
    """Return how an engine takes images; None if its model takes text only, or takes images in a way unknown here.

    ``config``: vLLM's ModelConfig.
    """
    if getattr(config, "multimodal_config", None) is None:
        return None
    try:
        return _read(config)
    except Exception as error:  # a model's own processor may fail in any way
        log.warning("the engine is offered text only: its image processor failed: %s", first_line(error))
        return None


def _read(config: Any) -> ImageInput | None:
    """Process the largest image of the model.  Raises what the model's processor raises."""
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.utils.torch_utils import set_default_torch_num_threads

    processor = MULTIMODAL_REGISTRY.create_processor(config)
    most_images = processor.info.allowed_mm_limits.get("image", 0)
    named = (getattr(config.hf_config, name, None) for name in _PLACEHOLDERS)
    placeholder = next((id_ for id_ in named if id_ is not None), None)
    if not most_images:
        return None
    if placeholder is None:
        log.warning("the engine is offered text only: config.json does not say which token stands for an image")
        return None
    with set_default_torch_num_threads():  # as vLLM does where it processes images at its start
        largest = processor.get_dummy_mm_inputs({"image": 1}, cache=None)
    [place] = largest["mm_placeholders"]["image"]
    return ImageInput(placeholder_token_id=placeholder, most_tokens=place.length, most_images=most_images)


async def prompt_with_images(request: EngineRequest) -> dict[str, Any]:
    """Return vLLM's prompt of a request with images, which are decoded in a thread.

    Raises InvalidRequestError for an image that cannot be decoded, and for one with which there are too many pixels.
    """
    return {
        "prompt_token_ids": list(request.prompt_token_ids),
        "multi_modal_data": {"image": await asyncio.to_thread(_decoded, request.images)},
        "multi_modal_uuids": {"image": [each.digest for each in request.images]},
    }


def forget_pixels(prompt: dict[str, Any]) -> None:
    """Drop decoded images from a prompt that vLLM has processed, which it keeps for as long as the output takes."""
    prompt.pop("multi_modal_data", None)


def _decoded(images: Sequence[EngineImage]) -> list[Any]:
    """Decode images as vLLM's own server does.  Raises InvalidRequestError."""
    from vllm.multimodal.media import ImageMediaIO

    check_images(images)
    found = []
    for index, each in enumerate(images):
        try:
            found.append(ImageMediaIO().load_bytes(each.data))
        except Exception as error:  # the library raises many kinds for content that is broken
            raise InvalidRequestError(f"images[{index}]", f"cannot be decoded: {first_line(error)}") from error
    return found


def check_images(images: Sequence[EngineImage]) -> None:
    """Check format and size of images by their headers, before memory is taken for any pixel.

    Raises InvalidRequestError.
    """
    total = 0
    for index, each in enumerate(images):
        field_name = f"images[{index}]"
        width, height = _size(each.data, field_name)
        if width * height > IMAGE_LIMIT_PIXELS:
            what = f"has {width} x {height} pixels; the limit of an image is {IMAGE_LIMIT_PIXELS} in all"
            raise InvalidRequestError(field_name, what)
        total += width * height
        if total > IMAGES_LIMIT_PIXELS:
            what = f"has {width} x {height} pixels, with those before it {total}; the limit is {IMAGES_LIMIT_PIXELS}"
            raise InvalidRequestError(field_name, what)


def _size(data: bytes, field_name: str) -> tuple[int, int]:
    """Return an image's width and height in pixels, as its header has them.  Raises InvalidRequestError."""
    from io import BytesIO

    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=sorted(IMAGE_FORMATS)) as image:
            width, height = image.size
    except Exception as error:
        formats = ", ".join(sorted(IMAGE_FORMATS))
        raise InvalidRequestError(field_name, f"is no image of these formats: {formats}") from error
    return width, height
