"""The parts of a conversation that are not text, which no model here is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

KINDS = {
    **dict.fromkeys(("image_url", "input_image", "image", "image_pil", "image_embeds"), "an image"),
    **dict.fromkeys(("input_audio", "audio_url", "audio", "audio_embeds"), "audio"),
    **dict.fromkeys(("video_url", "video", "video_embeds"), "a video"),
    **dict.fromkeys(("file", "input_file", "document"), "a file"),
    "prompt_embeds": "an embedded prompt",
}
"""Types of content parts in the APIs of OpenAI, Anthropic and vLLM, and what they are in words."""

CONVERSATIONS = ("messages", "input")
"""The fields of a body that hold one."""


def not_text(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return where the first part that is not text is, and what it is; None if there is none.

    ``fields``: of the body of a request; the place is a path in it, such as ``messages[0].content[1]``.
    """
    for name in CONVERSATIONS:
        for place, part in _parts(fields.get(name), name):
            kind = part.get("type")
            if isinstance(kind, str) and kind in KINDS:
                return place, KINDS[kind]
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
