"""The images of a conversation, in each of the APIs that have them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sage_client import Image
from sage_gateway.content_parts import Part, objects_in
from sage_wire.image_urls import image_in, is_data_url, url_of
from sage_wire.protocol import IMAGE_TYPES, IMAGES_LIMIT

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"


class BadPart(Exception):
    """An image cannot be sent; ``str()`` says why.

    Attributes:
        place: path in the body, such as ``messages[0].content[1]``.
    """

    def __init__(self, place: str, what: str) -> None:
        self.place = place
        super().__init__(what)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePart:
    """A part of a conversation that is an image."""

    place: str  # path in the body
    part: dict[str, Any]  # of the body
    url: str  # holds the image, or is the address of one

    @property
    def is_address(self) -> bool:
        """Whether the image has to be fetched."""
        return not is_data_url(self.url)

    def adapt(self) -> bool:
        """Write the part as vLLM's server has to read it; return whether that changed it.

        ``uuid`` is left out: vLLM's server would take the image for any other one that came under that name, also
        from another caller.  ``detail``, which clients may leave out, is wanted in a tool's result.
        """
        named = self.part.pop("uuid", None) is not None
        short = self.part["type"] == "input_image" and "detail" not in self.part and ".output[" in self.place
        if short:
            self.part["detail"] = "auto"
        return named or short

    def put(self, image: Image) -> None:
        """Write an image into the body in the place of its address: vLLM's server fetches nothing."""
        url = f"data:{image.mime_type};base64,{base64.b64encode(image.data).decode()}"
        if self.part["type"] == "image":
            self.part["source"] = {"type": "url", "url": url}
        else:
            self.part["image_url"] = url if self.part["type"] == "input_image" else {"url": url}


Fetch = Callable[[Sequence[ImagePart]], Coroutine[Any, Any, Sequence[Image]]]
"""Fetches images from the addresses of parts, in their order.  Raises BadPart."""


def image_parts(path: str, fields: Mapping[str, Any], limit: int = IMAGES_LIMIT) -> tuple[ImagePart, ...]:
    """Return the images of a body, in the order in which vLLM's server puts them into the prompt.

    ``path``: the route.  ``limit``: most images that may be sent.  Images that stand where vLLM's server leaves them
    out of the prompt are left out here, too.

    Raises:
        BadPart: an image has no URL, or is one too many.
    """
    found: list[ImagePart] = []
    for place, part in _PARTS[path](fields) if path in _PARTS else ():
        if part.get("type") != TYPES[path]:
            continue
        if len(found) == limit:
            raise BadPart(place, f"is image {limit + 1}; the limit is {limit}")
        try:
            found.append(ImagePart(place=place, part=part, url=_url(part)))
        except ValueError as error:
            raise BadPart(place, str(error)) from None
    return tuple(found)


def held_image(part: ImagePart) -> Image:
    """Return the image that a part's URL holds.

    Raises:
        BadPart: it holds none, or one of a type that executors do not read.
    """
    try:
        data, kind = image_in(part.url)
    except ValueError as error:
        raise BadPart(part.place, str(error)) from None
    if kind and kind not in IMAGE_TYPES:
        types = ", ".join(sorted(IMAGE_TYPES))
        raise BadPart(part.place, f"is an image of type {kind[:64]!r}; there are: {types}")
    return Image(data=data, mime_type=kind)


def _url(part: Mapping[str, Any]) -> str:
    """Return the URL of an image.  Raises ValueError."""
    source = part.get("source")
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

TYPES: Mapping[str, str] = {CHAT: "image_url", RESPONSES: "input_image", MESSAGES: "image", COUNT_TOKENS: "image"}
"""The type of an image in the conversations of each route that has them."""
