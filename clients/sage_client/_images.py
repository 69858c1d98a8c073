"""Images in prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sage.controlplane.v1 import inference_pb2
from sage_wire.image_urls import image_in, url_of
from sage_wire.protocol import IMAGE_LIMIT_BYTES, IMAGE_TYPES


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image in a message, or in a prompt of token ids: a PNG, JPEG, WebP or GIF of at most 4 MiB."""

    data: bytes = field(repr=False)  # as it is encoded
    mime_type: str = ""  # such as "image/png"; empty: the executor finds out

    @classmethod
    def from_url(cls, found: str | Mapping[str, Any]) -> Image:
        """Return the image of an ``image_url``, as OpenAI's clients write it.

        Raises:
            ValueError: there is no URL, or it does not hold the image itself; nothing is fetched.
        """
        data, mime_type = image_in(url_of(found))
        return cls(data=data, mime_type=mime_type)


def image_of(image: Image | bytes) -> inference_pb2.Media:
    """Encode an image.  Raises ValueError for one that the scheduler would refuse."""
    data, kind = (image.data, image.mime_type) if isinstance(image, Image) else (image, "")
    if not data:
        raise ValueError("the image is empty")
    if len(data) > IMAGE_LIMIT_BYTES:
        raise ValueError(f"the image has {len(data)} bytes; the limit is {IMAGE_LIMIT_BYTES}")
    if kind and kind not in IMAGE_TYPES:
        raise ValueError(f"images of type {kind!r} are not supported; there are: {', '.join(sorted(IMAGE_TYPES))}")
    return inference_pb2.Media(data=data, mime_type=kind)
