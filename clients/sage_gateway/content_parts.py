"""The parts of a conversation that are not text: what they are, and where they stand."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

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

CONVERSATIONS = ("messages", "input", "system")
"""The fields of a body that hold one, or a part of it."""

Part = tuple[str, dict[str, Any]]
"""A part with its place, a path in the body such as ``messages[0].content[1]``."""


def not_text(fields: Mapping[str, Any], sent: Collection[str] = ()) -> tuple[str, str] | None:
    """Return where the first part that cannot be sent is, and what it is; None if there is none.

    ``fields``: of the body of a request.  ``sent``: places of parts that can be sent.
    """
    for name in CONVERSATIONS:
        for place, part in _parts(fields.get(name), name):
            if place in sent:
                continue
            kind = part.get("type")
            untyped = (name for name in sorted(UNTYPED & part.keys()) if part[name] is not None)
            named = kind if isinstance(kind, str) and kind in KINDS else next(untyped, None)
            if named is not None:
                return place, KINDS[named]
    return None


def objects_in(found: Any, place: str) -> Iterator[Part]:
    """Yield the objects of a list with their places; nothing if it is no list."""
    if isinstance(found, list):
        for index, each in enumerate(found):
            if isinstance(each, dict):
                yield f"{place}[{index}]", each


def _parts(turns: Any, name: str) -> Iterator[Part]:
    """Yield the parts of all turns, with those of a tool's result, and their places."""
    for turn_place, turn in objects_in(turns, name):
        yield turn_place, turn
        yield from objects_in(turn.get("output"), f"{turn_place}.output")
        for place, part in objects_in(turn.get("content"), f"{turn_place}.content"):
            yield place, part
            yield from objects_in(part.get("content"), f"{place}.content")
