"""Kinds of content that prompts have beside text, and how an engine takes each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

MEDIA_LIMIT = 16
"""Most images and audio clips of a request together."""

MEDIA_LIMIT_BYTES = 8 * 1024 * 1024
"""Most bytes of all images and audio of a request together; also of one audio clip, as it is encoded."""

IMAGE_LIMIT_BYTES = 4 * 1024 * 1024
"""Largest image, as it is encoded."""

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
"""Media types of the images that requests may have."""

AUDIO_TYPES = frozenset({"audio/wav", "audio/flac", "audio/ogg", "audio/mpeg"})
"""Media types of the audio that requests may have."""


class MediaKind(StrEnum):
    """What content that is not text is.  The value is the name of its parts in the contract and in chat templates."""

    IMAGE = "image"
    AUDIO = "audio"

    @property
    def noun(self) -> str:
        """What one is called: "image", "audio clip"."""
        return "image" if self is MediaKind.IMAGE else "audio clip"

    @property
    def limit_bytes(self) -> int:
        """Most bytes of one, as it is encoded."""
        return IMAGE_LIMIT_BYTES if self is MediaKind.IMAGE else MEDIA_LIMIT_BYTES

    @property
    def types(self) -> frozenset[str]:
        """The media types that one may have."""
        return IMAGE_TYPES if self is MediaKind.IMAGE else AUDIO_TYPES

    @property
    def field(self) -> str:
        """The contract's field with those of a prompt of token ids: "images", "audio"."""
        return "images" if self is MediaKind.IMAGE else "audio"


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaInput:
    """Facts of an engine that takes one kind of media in prompts."""

    kind: MediaKind
    placeholder_token_id: int  # stands for one in a prompt; the engine puts its tokens in that place
    most_tokens: int  # that one takes in the engine
    most: int  # of one prompt
    most_seconds: float = 0.0  # of audio: the longest clip
    rate_hz: int = 0  # of audio: samples per second that the model takes


def input_of(inputs: Iterable[MediaInput], kind: MediaKind) -> MediaInput | None:
    """Return how an engine with these facts takes a kind of media; None if it takes none."""
    return next((each for each in inputs if each.kind is kind), None)


def taken(kinds: Iterable[MediaKind]) -> str:
    """Say what is taken beside text, such as "text only" or "text and images"."""
    present = set(kinds)
    names = [each.field for each in MediaKind if each in present]
    return " and ".join(["text", *names]) if names else "text only"
