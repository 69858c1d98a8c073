"""Finds out whether a started vLLM engine takes images, and makes vLLM's prompts with images."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from executor_svc.engine.vllm.errors import first_line
from executor_svc.runtime.engine_port import EngineImage, EngineRequest, ImageInput, InvalidRequestError

log = logging.getLogger(__name__)

IMAGE_LIMIT_PIXELS = 32 * 1024 * 1024
"""Most pixels of an image: 96 MiB once it is decoded."""

FORMATS = frozenset({"PNG", "JPEG", "WEBP", "GIF"})
"""Encodings of images, by the names of the library that reads them."""

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

    Raises InvalidRequestError for an image that cannot be decoded, or has too many pixels.
    """
    return {
        "prompt_token_ids": list(request.prompt_token_ids),
        "multi_modal_data": {"image": await asyncio.to_thread(_decoded, request.images)},
        "multi_modal_uuids": {"image": [each.digest for each in request.images]},
    }


def _decoded(images: Sequence[EngineImage]) -> list[Any]:
    """Decode images as vLLM's own server does.  Raises InvalidRequestError."""
    from vllm.multimodal.media import ImageMediaIO

    found = []
    for index, each in enumerate(images):
        _check(each.data, f"images[{index}]")
        try:
            found.append(ImageMediaIO().load_bytes(each.data))
        except Exception as error:  # the library raises many kinds for content that is broken
            raise InvalidRequestError(f"images[{index}]", f"cannot be decoded: {first_line(error)}") from error
    return found


def _check(data: bytes, field_name: str) -> None:
    """Check format and size by an image's header, before memory is taken for its pixels."""
    from io import BytesIO

    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=sorted(FORMATS)) as image:
            width, height = image.size
    except Exception as error:
        formats = ", ".join(sorted(FORMATS))
        raise InvalidRequestError(field_name, f"is no image of these formats: {formats}") from error
    if width * height > IMAGE_LIMIT_PIXELS:
        raise InvalidRequestError(
            field_name, f"has {width} x {height} pixels; the limit is {IMAGE_LIMIT_PIXELS} together"
        )
