"""Images and audio in ``data:`` URLs and parts, as OpenAI's clients write them."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from sage_media.kinds import MediaKind

_SHOWN = 40  # characters of a URL
_BASE64 = ";base64"

_OTHER_NAMES = {
    "audio/mp3": "audio/mpeg",
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-flac": "audio/flac",
    "application/ogg": "audio/ogg",
    "image/jpg": "image/jpeg",
}
"""What else media types are called."""


def media_type(found: str) -> str:
    """Return a media type by its usual name, in lower case."""
    name = found.lower()
    return _OTHER_NAMES.get(name, name)


def is_data_url(url: str) -> bool:
    """Return whether a URL holds what it stands for, so that nothing has to be fetched."""
    return url[:5].lower() == "data:"


def url_of(found: object, kind: MediaKind = MediaKind.IMAGE) -> str:
    """Return the URL of an ``image_url`` or ``audio_url``: a string, or an object with ``url``.

    Raises:
        ValueError: it has none.
    """
    url = found.get("url") if isinstance(found, Mapping) else found
    if not isinstance(url, str):
        raise ValueError(f"has no URL of an {kind.noun}")
    return url


def url_of_input(found: object) -> str:
    """Return the ``data:`` URL of an ``input_audio``: an object with ``data``, in base64, and ``format``.

    Raises:
        ValueError: it is none.
    """
    fields = found if isinstance(found, Mapping) else {}
    data, name = fields.get("data"), fields.get("format")
    if not (isinstance(data, str) and isinstance(name, str)):
        raise ValueError("has no data and format of an audio clip")
    return f"data:audio/{name}{_BASE64},{data}"


MEDIA_PARTS: Mapping[str, MediaKind] = {
    "image_url": MediaKind.IMAGE,
    "audio_url": MediaKind.AUDIO,
    "input_audio": MediaKind.AUDIO,
}
"""Types of parts of a chat that are no text, and what they hold; each has it in a member of the same name."""


def url_of_part(part: Mapping[str, object]) -> str:
    """Return the URL that a part with one of these types holds, or is the address of its content.

    Raises:
        ValueError: it has none.
    """
    name = part["type"]
    found = part.get(name) if isinstance(name, str) else None
    return url_of_input(found) if name == "input_audio" else url_of(found, MEDIA_PARTS[str(name)])


def content_of_part(part: Mapping[str, object]) -> tuple[MediaKind, bytes, str]:
    """Return what a part with one of these types holds: its kind, the content, and its media type or nothing.

    Raises:
        ValueError: it does not hold the content itself, or too much of it.
    """
    kind = MEDIA_PARTS[str(part["type"])]
    data, found = content_in(url_of_part(part), kind)
    return kind, data, found


def content_in(url: str, kind: MediaKind) -> tuple[bytes, str]:
    """Return what a URL holds and its media type, such as "image/png", which may be empty.

    Raises:
        ValueError: the URL does not hold the content itself, or there is more of it than a request may have.
    """
    head, comma, content = url.partition(",")
    if not (is_data_url(head) and comma and head.endswith(_BASE64)):
        example = "data:image/png;base64,..." if kind is MediaKind.IMAGE else "data:audio/wav;base64,..."
        raise ValueError(f"{shown(url)} is not fetched; send the {kind.noun} itself, as {example}")
    if len(content) > kind.limit_bytes // 3 * 4 + 4:
        raise ValueError(f"the {kind.noun} has more than {kind.limit_bytes} bytes")
    try:
        data = base64.b64decode(content, validate=True)
    except ValueError as error:
        raise ValueError(f"the {kind.noun} is not base64: {error}") from None
    return data, media_type(head[5 : -len(_BASE64)])


def shown(url: str) -> str:
    """Return the beginning of a URL in quotes, for messages."""
    return repr(url if len(url) <= _SHOWN else f"{url[:_SHOWN]}...")
