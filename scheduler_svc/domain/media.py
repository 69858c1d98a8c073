"""Images and audio of a prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from sage_media.kinds import MediaInput, MediaKind, input_of

_AT_FAULT = re.compile(r"spec\.(images|audio)\[(\d{1,4})\]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """Content of a prompt that is not text, as its caller sent it.  Only engines read what is in it."""

    kind: MediaKind = MediaKind.IMAGE
    data: bytes = dataclass_field(repr=False)
    field: str = "spec.images"  # path in the contract, for what is wrong with it


def of_kind(media: Iterable[Media], kind: MediaKind) -> list[Media]:
    """Return the media of a kind, in their order."""
    return [each for each in media if each.kind is kind]


def kinds_of(media: Iterable[Media]) -> list[MediaKind]:
    """Return the kinds that there are, each once."""
    present = {each.kind for each in media}
    return [kind for kind in MediaKind if kind in present]


def tokens_of(media: Iterable[Media], inputs: Iterable[MediaInput]) -> int:
    """Return the most tokens that media take beside their placeholders in an engine with these facts."""
    found = tuple(inputs)
    takes = (input_of(found, each.kind) for each in media)
    return sum(each.most_tokens - 1 for each in takes if each is not None)


def field_of_media(field_name: str, media: Sequence[Media]) -> str:
    """Return where in the request the content is that an engine names as ``spec.images[...]`` or ``spec.audio[...]``.

    Other fields are returned as named.
    """
    found = _AT_FAULT.fullmatch(field_name)
    if found is None:
        return field_name
    alike = [each for each in media if each.kind.field == found[1]]
    index = int(found[2])
    return alike[index].field if index < len(alike) else field_name
