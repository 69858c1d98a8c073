"""Formats and pixels of a conversation's images, which are looked at before vLLM's server decodes any."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from sage_client import Image
from sage_common.image_pixels import IMAGE_FORMATS, IMAGE_LIMIT_PIXELS, IMAGES_LIMIT_PIXELS


def bad_image(images: Sequence[Image]) -> tuple[int, str] | None:
    """Return the index of the first image that executors refuse by its header, and why; None if there is none.

    vLLM's server decodes many more formats than executors do.
    """
    total = 0
    for index, each in enumerate(images):
        pixels = _pixels(each.data)
        if isinstance(pixels, str):
            return index, pixels
        if pixels > IMAGE_LIMIT_PIXELS:
            return index, f"has {pixels} pixels; the limit of an image is {IMAGE_LIMIT_PIXELS}"
        total += pixels
        if total > IMAGES_LIMIT_PIXELS:
            what = f"has {pixels} pixels, with the images before it {total}; the limit is {IMAGES_LIMIT_PIXELS}"
            return index, what
    return None


def _pixels(data: bytes) -> int | str:
    """Return how many pixels an image has, as its header says; or why it cannot be read."""
    from PIL import Image as Reader

    try:
        with Reader.open(BytesIO(data), formats=sorted(IMAGE_FORMATS)) as opened:
            width, height = opened.size
    except Reader.DecompressionBombError:
        return f"has far too many pixels; the limit of an image is {IMAGE_LIMIT_PIXELS}"
    except Exception:  # the library raises many kinds for what is no image
        return f"is no image of these formats: {', '.join(sorted(IMAGE_FORMATS))}"
    return width * height
