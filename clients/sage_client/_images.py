"""Images in prompts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sage.controlplane.v1 import inference_pb2
from sage_wire.protocol import IMAGE_LIMIT_BYTES, IMAGE_TYPES

_SHOWN = 40  # characters of a URL


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image in a message, or in a prompt of token ids: a PNG, JPEG, WebP or GIF of at most 4 MiB."""

    data: bytes = field(repr=False)  # as it is encoded
    mime_type: str = ""  # such as "image/png"; empty: the executor finds out

    @classmethod
    def from_url(cls, found: str | Mapping[str, Any]) -> Image:
        """Return the image of an ``image_url``, as OpenAI's clients write it.

        Raises:
            ValueError: the URL does not hold the image itself; nothing is fetched.
        """
        return _image_at(found)


def _image_at(found: str | Mapping[str, Any]) -> Image:
    url = found if isinstance(found, str) else found["url"]
    head, comma, content = url.partition(",")
    if not (head[:5].lower() == "data:" and comma and head.endswith(";base64")):
        shown = url if len(url) <= _SHOWN else f"{url[:_SHOWN]}..."
        raise ValueError(f"{shown!r} is not fetched; send the image itself, as data:image/png;base64,...")
    if len(content) > IMAGE_LIMIT_BYTES // 3 * 4 + 4:
        raise ValueError(f"the image has more than {IMAGE_LIMIT_BYTES} bytes")
    try:
        data = base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the image is not base64: {error}") from None
    return Image(data=data, mime_type=head[5 : -len(";base64")].lower())


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
