"""Formats that images of a request may have, and how many pixels, wherever they are decoded."""

from __future__ import annotations

IMAGE_FORMATS = frozenset({"PNG", "JPEG", "WEBP", "GIF"})
"""Encodings of images, by the names of Pillow, which reads them; sage_wire has their media types."""

IMAGE_LIMIT_PIXELS = 32 * 1024 * 1024
"""Most pixels of an image: 96 MiB once it is decoded."""

IMAGES_LIMIT_PIXELS = 64 * 1024 * 1024
"""Most pixels of all images of a request together: 192 MiB once they are decoded."""
