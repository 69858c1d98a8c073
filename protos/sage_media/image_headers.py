"""Reads formats and sizes of images in their headers, before memory is taken for any pixel."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

IMAGE_FORMATS = frozenset({"PNG", "JPEG", "WEBP", "GIF"})
"""Encodings of images, by the names of Pillow, which reads them."""

IMAGE_LIMIT_PIXELS = 32 * 1024 * 1024
"""Most pixels of an image: 96 MiB once it is decoded."""

IMAGES_LIMIT_PIXELS = 64 * 1024 * 1024
"""Most pixels of all images of a request together: 192 MiB once they are decoded."""


def bad_image(images: Sequence[bytes]) -> tuple[int, str] | None:
    """Return the index of the first image that may not be decoded, and why; None if there is none."""
    total = 0
    for index, each in enumerate(images):
        size = _size(each)
        if isinstance(size, str):
            return index, size
        width, height = size
        if width * height > IMAGE_LIMIT_PIXELS:
            what = f"has {width} x {height} pixels; the limit of an image is {IMAGE_LIMIT_PIXELS} in all"
            return index, what
        total += width * height
        if total > IMAGES_LIMIT_PIXELS:
            what = f"has {width} x {height} pixels, with those before it {total}; the limit is {IMAGES_LIMIT_PIXELS}"
            return index, what
    return None


def _size(data: bytes) -> tuple[int, int] | str:
    """Return an image's width and height in pixels, as its header says; or why it cannot be read."""
    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=sorted(IMAGE_FORMATS)) as opened:
            width, height = opened.size
    except Image.DecompressionBombError:
        return f"has far too many pixels; the limit of an image is {IMAGE_LIMIT_PIXELS}"
    except Exception:  # the library raises many kinds for what is no image
        return f"is no image of these formats: {', '.join(sorted(IMAGE_FORMATS))}"
    return width, height
