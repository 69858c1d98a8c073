"""The images and audio of a conversation, in each of the APIs that have them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sage_client import Audio, Image
from sage_gateway.content_parts import Part, objects_in
from sage_gateway.media_memory import HeldMedia
from sage_media.kinds import MEDIA_LIMIT, MediaKind
from sage_media.urls import MEDIA_PARTS, content_in, is_data_url, url_of, url_of_part

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"


Media = Image | Audio
"""Content that is not text, as the SDK sends it."""


class BadPart(Exception):
    """An image or an audio clip cannot be sent; ``str()`` says why.

    Attributes:
        place: path in the body, such as ``messages[0].content[1]``.
    """

    def __init__(self, place: str, what: str) -> None:
        self.place = place
        super().__init__(what)


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaPart:
    """A part of a conversation that is an image or an audio clip."""

    kind: MediaKind
    place: str  # path in the body
    part: dict[str, Any]  # of the body
    url: str  # holds the content, or is the address of it

    @property
    def is_address(self) -> bool:
        """Whether the content has to be fetched."""
        return not is_data_url(self.url)

    def adapt(self) -> bool:
        """Write the part as vLLM's server has to read it; return whether that changed it.

        ``uuid`` is left out: vLLM's server would take the content for any other that came under that name, also
        from another caller.  ``detail``, which clients may leave out, is wanted in a tool's result.
        """
        named = self.part.pop("uuid", None) is not None
        short = self.part["type"] == "input_image" and "detail" not in self.part and ".output[" in self.place
        if short:
            self.part["detail"] = "auto"
        return named or short

    def put(self, content: Media) -> None:
        """Write what was fetched into the body in the place of its address: vLLM's server fetches nothing."""
        url = f"data:{content.mime_type};base64,{base64.b64encode(content.data).decode()}"
        if self.kind is MediaKind.AUDIO:
            self.part["audio_url"] = {"url": url}
        elif self.part["type"] == "image":
            self.part["source"] = {"type": "url", "url": url}
        else:
            self.part["image_url"] = url if self.part["type"] == "input_image" else {"url": url}

    def put_samples(self, wav: bytes) -> None:
        """Write an audio clip into the body as vLLM's server can read it: a WAV at the model's rate."""
        self.part.pop("audio_url", None)
        self.part["type"] = "input_audio"
        self.part["input_audio"] = {"data": base64.b64encode(wav).decode(), "format": "wav"}


Fetch = Callable[[Sequence[MediaPart], HeldMedia], Coroutine[Any, Any, Sequence[Media]]]
"""Fetches content from the addresses of parts, in their order.  Raises BadPart, and MediaMemoryFull."""


def media_parts(path: str, fields: Mapping[str, Any], limits: Mapping[MediaKind, int]) -> tuple[MediaPart, ...]:
    """Return the images and audio of a body, in the order in which vLLM's server puts them into the prompt.

    ``path``: the route.  ``limits``: most of each kind that may be sent; kinds of which none may be are left out.  What
    stands where vLLM's server leaves it out of the prompt is left out here, too.

    Raises:
        BadPart: one has no URL, or is one too many.
    """
    found: list[MediaPart] = []
    for place, part in _PARTS[path](fields) if path in _PARTS else ():
        kind = TYPES[path].get(str(part.get("type")))
        if kind is None or not limits.get(kind):
            continue
        try:
            found.append(MediaPart(kind=kind, place=place, part=part, url=_url(part)))
        except ValueError as error:
            raise BadPart(place, str(error)) from None
        limit = limits[kind]
        if sum(each.kind is kind for each in found) > limit:
            raise BadPart(place, f"is {kind.noun} {limit + 1}; the limit is {limit}")
        if len(found) > MEDIA_LIMIT:
            raise BadPart(place, f"is one too many: images and audio clips together may be {MEDIA_LIMIT}")
    return tuple(found)


def held_content(part: MediaPart) -> Media:
    """Return the content that a part's URL holds.

    Raises:
        BadPart: it holds none, or one of a type that executors do not read.
    """
    try:
        data, found = content_in(part.url, part.kind)
        return made(part.kind, data, found)
    except ValueError as error:
        raise BadPart(part.place, str(error)) from None


def made(kind: MediaKind, data: bytes, mime_type: str) -> Media:
    """Return content of a kind.  Raises ValueError for a type that executors do not read."""
    if mime_type and mime_type not in kind.types:
        types = ", ".join(sorted(kind.types))
        raise ValueError(f"is an {kind.noun} of type {mime_type[:64]!r}; there are: {types}")
    return (Image if kind is MediaKind.IMAGE else Audio)(data=data, mime_type=mime_type)


def _url(part: Mapping[str, Any]) -> str:
    """Return the URL of an image or a clip.  Raises ValueError."""
    source = part.get("source")
    if part["type"] in MEDIA_PARTS:
        return url_of_part(part)
    if part["type"] != "image":
        return url_of(part.get("image_url"))
    if not isinstance(source, Mapping) or source.get("type") not in ("base64", "url"):
        raise ValueError("has no source of type base64 or url")
    if source["type"] == "url":
        return url_of(source)
    return f"data:{source.get('media_type', '')};base64,{source.get('data', '')}"


def _in_chat(fields: Mapping[str, Any]) -> Iterator[Part]:
    for place, message in objects_in(fields.get("messages"), "messages"):
        yield from objects_in(message.get("content"), f"{place}.content")


def _in_responses(fields: Mapping[str, Any]) -> Iterator[Part]:
    """Yield the parts of messages and of tools' results; of an assistant's message, vLLM's server reads text alone."""
    for place, item in objects_in(fields.get("input"), "input"):
        if item.get("type") in ("function_call_output", "custom_tool_call_output"):
            yield from objects_in(item.get("output"), f"{place}.output")
        elif item.get("role") != "assistant":
            yield from objects_in(item.get("content"), f"{place}.content")


def _in_messages(fields: Mapping[str, Any]) -> Iterator[Part]:
    """Yield the blocks of users' messages: those of tools' results first, which come before what stands beside them."""
    for place, message in objects_in(fields.get("messages"), "messages"):
        if message.get("role") != "user":
            continue
        blocks = list(objects_in(message.get("content"), f"{place}.content"))
        for block_place, block in blocks:
            if block.get("type") == "tool_result":
                yield from objects_in(block.get("content"), f"{block_place}.content")
        yield from blocks


_PARTS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Part]]] = {
    CHAT: _in_chat,
    RESPONSES: _in_responses,
    MESSAGES: _in_messages,
    COUNT_TOKENS: _in_messages,
}

TYPES: Mapping[str, Mapping[str, MediaKind]] = {
    CHAT: MEDIA_PARTS,
    RESPONSES: {"input_image": MediaKind.IMAGE},
    MESSAGES: {"image": MediaKind.IMAGE},
    COUNT_TOKENS: {"image": MediaKind.IMAGE},
}
"""The types of images and audio in the conversations of each route that has them."""
