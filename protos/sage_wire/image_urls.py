"""Images in ``data:`` URLs, as OpenAI's clients write them."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from sage_wire.protocol import IMAGE_LIMIT_BYTES

_SHOWN = 40  # characters of a URL
_BASE64 = ";base64"


def is_data_url(url: str) -> bool:
    """Return whether a URL holds what it stands for, so that nothing has to be fetched."""
    return url[:5].lower() == "data:"


def url_of(found: object) -> str:
    """Return the URL of an ``image_url``: a string, or an object with ``url``.

    Raises:
        ValueError: it has none.
    """
    url = found.get("url") if isinstance(found, Mapping) else found
    if not isinstance(url, str):
        raise ValueError("has no URL of an image")
    return url


def image_in(url: str) -> tuple[bytes, str]:
    """Return an image's bytes and its media type, such as "image/png", which may be empty.

    Raises:
        ValueError: the URL does not hold the image itself, or the image is larger than IMAGE_LIMIT_BYTES.
    """
    head, comma, content = url.partition(",")
    if not (is_data_url(head) and comma and head.endswith(_BASE64)):
        raise ValueError(f"{shown(url)} is not fetched; send the image itself, as data:image/png;base64,...")
    if len(content) > IMAGE_LIMIT_BYTES // 3 * 4 + 4:
        raise ValueError(f"the image has more than {IMAGE_LIMIT_BYTES} bytes")
    try:
        data = base64.b64decode(content, validate=True)
    except ValueError as error:
        raise ValueError(f"the image is not base64: {error}") from None
    return data, head[5 : -len(_BASE64)].lower()


def shown(url: str) -> str:
    """Return the beginning of a URL in quotes, for messages."""
    return repr(url if len(url) <= _SHOWN else f"{url[:_SHOWN]}...")
