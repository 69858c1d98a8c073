"""Images and audio in prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sage.controlplane.v1 import inference_pb2
from sage_media.kinds import MediaKind
from sage_media.urls import MEDIA_PARTS, content_in, content_of_part, media_type, url_of, url_of_input


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image in a message, or in a prompt of token ids: a PNG, JPEG, WebP or GIF of at most 4 MiB."""

    kind: ClassVar[MediaKind] = MediaKind.IMAGE
    data: bytes = field(repr=False)  # as it is encoded
    mime_type: str = ""  # such as "image/png"; empty: the executor finds out

    @classmethod
    def from_url(cls, found: str | Mapping[str, Any]) -> Image:
        """Return the image of an ``image_url``, as OpenAI's clients write it.

        Raises:
            ValueError: there is no URL, or it does not hold the image itself; nothing is fetched.
        """
        data, mime_type = content_in(url_of(found), cls.kind)
        return cls(data=data, mime_type=mime_type)


@dataclass(frozen=True, kw_only=True, slots=True)
class Audio:
    """An audio clip in a message, or in a prompt of token ids: a WAV, FLAC, Ogg or MP3 file of at most 8 MiB."""

    kind: ClassVar[MediaKind] = MediaKind.AUDIO
    data: bytes = field(repr=False)  # the content of the file
    mime_type: str = ""  # such as "audio/wav"; empty: the executor finds out

    @classmethod
    def from_input(cls, found: Mapping[str, Any]) -> Audio:
        """Return the clip of an ``input_audio``, as OpenAI's clients write it: ``data`` in base64, and ``format``.

        Raises:
            ValueError: it is none.
        """
        data, mime_type = content_in(url_of_input(found), cls.kind)
        return cls(data=data, mime_type=mime_type)


Media = Image | Audio


def media_of(content: Media) -> inference_pb2.Media:
    """Encode an image or a clip.  Raises ValueError for one that the scheduler would refuse."""
    noun, data = content.kind.noun, content.data
    if not data:
        raise ValueError(f"the {noun} is empty")
    if len(data) > content.kind.limit_bytes:
        raise ValueError(f"the {noun} has {len(data)} bytes; the limit is {content.kind.limit_bytes}")
    found = media_type(content.mime_type)
    if found and found not in content.kind.types:
        types = ", ".join(sorted(content.kind.types))
        raise ValueError(f"{noun}s of type {found!r} are not supported; there are: {types}")
    return inference_pb2.Media(data=data, mime_type=found)


def media_in_part(part: Mapping[str, Any]) -> Media | None:
    """Return the image or the clip of a part as OpenAI's clients write it; None for a part of another type.

    Raises:
        ValueError: it does not hold the content itself; nothing is fetched.
    """
    if part.get("type") not in MEDIA_PARTS:
        return None
    kind, data, mime_type = content_of_part(part)
    made = Image if kind is MediaKind.IMAGE else Audio
    return made(data=data, mime_type=mime_type)
