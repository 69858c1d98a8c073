"""The pixels of a conversation's images, which are counted before vLLM's server decodes any."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from sage_client import Image
from sage_common.image_pixels import IMAGES_LIMIT_PIXELS


def too_many_pixels(images: Sequence[Image]) -> str:
    """Say that images have more pixels together than executors take; empty if they do not.  Reads their headers alone.

    What cannot be read counts as no pixel: vLLM's server refuses it, as it does a single image that is too large.
    """
    total = sum(map(_pixels, images))
    if total <= IMAGES_LIMIT_PIXELS:
        return ""
    return f"the {len(images)} images have {total} pixels together; the limit is {IMAGES_LIMIT_PIXELS}"


def _pixels(image: Image) -> int:
    from PIL import Image as Reader

    try:
        with Reader.open(BytesIO(image.data)) as opened:
            width, height = opened.size
    except Exception:  # the library raises many kinds for what is no image
        return 0
    return width * height
