"""Images of a prompt, and how an engine takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field

_AT_FAULT = re.compile(r"spec\.images\[(\d{1,4})\]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image of a prompt, as its caller sent it.  Only engines read what is in it."""

    data: bytes = dataclass_field(repr=False)
    field: str = "spec.images"  # path in the contract, for what is wrong with it


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInput:
    """Facts of an engine that takes images in prompts."""

    placeholder_token_id: int  # stands for an image in a prompt; the engine puts the image's tokens in its place
    most_tokens: int  # that an image takes in the engine
    most_images: int  # of one prompt


def field_of_image(field_name: str, images: Sequence[Image]) -> str:
    """Return where in the request the image is that an engine names as ``spec.images[...]``; other fields as named."""
    found = _AT_FAULT.fullmatch(field_name)
    index = int(found[1]) if found is not None else len(images)
    return images[index].field if index < len(images) else field_name
