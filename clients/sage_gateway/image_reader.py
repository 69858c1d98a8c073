"""Reads the images of a request's conversation, and refuses what else is not text."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sage_client import Image, Model
from sage_gateway.asgi import Receive, while_connected
from sage_gateway.content_parts import not_text
from sage_gateway.conversation_images import TYPES, BadPart, Fetch, ImagePart, held_image, image_parts
from sage_gateway.error_answers import HttpError, Refused, invalid
from sage_gateway.image_pixels import bad_image
from sage_wire.protocol import IMAGES_LIMIT, IMAGES_LIMIT_BYTES

PROCESSING = ("mm_processor_kwargs", "media_io_kwargs")
"""vLLM's fields that change how its server processes images; executors are not told of them."""


class ImageReader:
    """Reads images out of bodies, or fetches them where it may."""

    def __init__(self, refusal: Callable[[str], Awaitable[HttpError | None]], fetch: Fetch | None = None) -> None:
        """``refusal``: says why no image is read for the caller with a token; None if it may send requests here.

        ``fetch``: fetches images by their addresses; None: nothing is fetched.
        """
        self._refusal = refusal
        self._fetch = fetch

    async def read(
        self, path: str, fields: Mapping[str, Any], model: Model, token: str, receive: Receive
    ) -> tuple[tuple[Image, ...], bool]:
        """Return the images of a conversation in its order, and whether ``fields``, the body's, were changed.

        Images that were fetched are written into it: vLLM's server fetches nothing.  Images of a caller that the
        scheduler does not know are not read: vLLM's server would decode them before the scheduler sees the request.

        ``receive``: of the HTTP request, whose body has been read.

        Raises:
            Refused: a part is neither text nor an image that can be sent.
            ClientGone: the connection was closed while images were fetched.
        """
        try:
            parts = image_parts(path, fields, min(IMAGES_LIMIT, model.most_images)) if model.most_images else ()
            if (found := not_text(fields, {each.place for each in parts})) is not None:
                raise Refused(invalid(f"{found[0]} is {found[1]}; {_sends(path, model)}", found[0]))
            if not parts:
                return (), False
            if (name := next((each for each in PROCESSING if fields.get(each)), None)) is not None:
                raise Refused(invalid(f"{name} is not supported by this server", name))
            if (refusal := await self._refusal(token)) is not None:
                raise Refused(refusal)
            away = [each for each in parts if each.is_address] if self._fetch is not None else []
            images = await self._read(parts, away, receive)
            _check_bytes(parts, images)
            if (bad := await asyncio.to_thread(bad_image, images)) is not None:
                raise BadPart(parts[bad[0]].place, bad[1])
        except BadPart as error:
            raise Refused(invalid(f"{error.place}: {error}", error.place)) from None
        adapted = [each.adapt() for each in parts]
        return images, bool(away) or any(adapted)

    async def _read(self, parts: Sequence[ImagePart], away: Sequence[ImagePart], receive: Receive) -> tuple[Image, ...]:
        """Return the images of ``parts``, of which ``away`` have addresses.  Raises BadPart and ClientGone."""
        fetched = {each.place for each in away}
        found = {each.place: held_image(each) for each in parts if each.place not in fetched}
        if self._fetch is not None and away:
            for part, image in zip(away, await while_connected(receive, self._fetch(away)), strict=True):
                part.put(image)
                found[part.place] = image
        return tuple(found[each.place] for each in parts)


def _check_bytes(parts: Sequence[ImagePart], images: Sequence[Image]) -> None:
    """Raise BadPart for the image with which all have more bytes than executors are sent."""
    size = 0
    for number, (part, image) in enumerate(zip(parts, images, strict=True), 1):
        size += len(image.data)
        if size > IMAGES_LIMIT_BYTES:
            what = f"with this one, {number} images have {size} bytes together; the limit is {IMAGES_LIMIT_BYTES}"
            raise BadPart(part.place, what)


def _sends(path: str, model: Model) -> str:
    """Say what a model is sent through a route."""
    if not model.most_images:
        return f"model {model.name!r} takes text only"
    if path not in TYPES:
        return f"images are for {', '.join(TYPES)}"
    where = "messages of users and results of tools"
    return f"this server sends models text, and images as parts of type {TYPES[path]!r} in {where}"
