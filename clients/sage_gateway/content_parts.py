"""The parts of a conversation that are not text: images, which some models take, and what no model here is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sage_client import Image
from sage_wire.protocol import IMAGES_LIMIT, IMAGES_LIMIT_BYTES

KINDS = {
    **dict.fromkeys(("image_url", "input_image", "image", "image_pil", "image_embeds"), "an image"),
    **dict.fromkeys(("input_audio", "audio_url", "audio", "audio_embeds"), "audio"),
    **dict.fromkeys(("video_url", "video", "video_embeds"), "a video"),
    **dict.fromkeys(("file", "input_file", "document"), "a file"),
    "prompt_embeds": "an embedded prompt",
}
"""Types of content parts in the APIs of OpenAI, Anthropic and vLLM, and what they are in words."""

UNTYPED = frozenset(
    ("image_url", "image_pil", "image_embeds", "audio_url", "input_audio", "audio_embeds", "video_url", "video_embeds")
)
"""Fields of a part that vLLM's server follows whatever the part's type is, also where it has none."""

IMAGE = "image_url"
"""The type of an image in OpenAI's chat completions, and the field of its URL."""

CONVERSATIONS = ("messages", "input")
"""The fields of a body that hold one."""


class BadPart(Exception):
    """An image cannot be sent; ``str()`` says why.

    Attributes:
        place: path in the body, such as ``messages[0].content[1]``.
    """

    def __init__(self, place: str, what: str) -> None:
        self.place = place
        super().__init__(what)


def images_of(fields: Mapping[str, Any]) -> tuple[Image, ...]:
    """Return the images of a chat completion's messages, in their order.  Nothing is fetched.

    Raises:
        BadPart: an image is not in the body, is too large, or is one too many; or with it all are too large.
    """
    found: list[Image] = []
    size = 0  # bytes of all
    for place, part in _parts(fields.get("messages"), "messages"):
        if part.get("type") != IMAGE:
            continue
        if len(found) == IMAGES_LIMIT:
            raise BadPart(place, f"is image {IMAGES_LIMIT + 1}; the limit is {IMAGES_LIMIT}")
        try:
            found.append(Image.from_url(part[IMAGE]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadPart(place, str(error) if isinstance(error, ValueError) else "has no URL of an image") from None
        size += len(found[-1].data)
        if size > IMAGES_LIMIT_BYTES:
            what = f"with this one, {len(found)} images have {size} bytes together; the limit is {IMAGES_LIMIT_BYTES}"
            raise BadPart(place, what)
    return tuple(found)


def not_text(fields: Mapping[str, Any], *, images: bool = False) -> tuple[str, str] | None:
    """Return where the first part that cannot be sent is, and what it is; None if there is none.

    ``fields``: of the body of a request; the place is a path in it, such as ``messages[0].content[1]``.  ``images``:
    whether images of messages, as ``images_of`` finds them, can be sent.
    """
    for name in CONVERSATIONS:
        for place, part in _parts(fields.get(name), name):
            kind = part.get("type")
            if images and kind == IMAGE:
                continue
            untyped = (name for name in sorted(UNTYPED & part.keys()) if part[name] is not None)
            named = kind if isinstance(kind, str) and kind in KINDS else next(untyped, None)
            if named is not None:
                return place, KINDS[named]
    return None


def _parts(turns: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the parts of all turns, with those of a tool's result, and their places."""
    for turn_place, turn in _objects(turns, name):
        yield turn_place, turn
        for place, part in _objects(turn.get("content"), f"{turn_place}.content"):
            yield place, part
            yield from _objects(part.get("content"), f"{place}.content")


def _objects(found: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(found, list):
        for index, each in enumerate(found):
            if isinstance(each, dict):
                yield f"{place}[{index}]", each
