"""Images and audio of prompts on the wire: their bounds, and their conversion in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from sage.controlplane.v1 import inference_pb2
from sage_media.kinds import MEDIA_LIMIT, MEDIA_LIMIT_BYTES, MediaKind
from sage_media.urls import media_type
from scheduler_svc.domain.media import Media, of_kind
from scheduler_svc.transport.violations import Violations

Found = tuple[str, MediaKind, inference_pb2.Media]
"""Content with its path in the contract, without the part's own kind, and what it is."""


class WithMedia(Protocol):
    """A message with the media of a prompt of token ids."""

    @property
    def images(self) -> Sequence[inference_pb2.Media]:
        """Images, in order."""

    @property
    def audio(self) -> Sequence[inference_pb2.Media]:
        """Clips of audio, in order."""


def check(spec: inference_pb2.GenerationSpec, violations: Violations) -> None:
    """Add a violation for every bound of a prompt's media that is exceeded, and for media that are not here."""
    kind = spec.WhichOneof("prompt")
    if kind != "tokens" and (spec.images or spec.audio):
        field = "spec.images" if spec.images else "spec.audio"
        violations.add(field, "are for prompts of tokens; the messages of a chat have their own")
        return
    found = list(_in_prompt(spec))
    if len(found) > MEDIA_LIMIT:
        field, kind_found, _ = found[MEDIA_LIMIT]
        what = f"is {kind_found.noun} {MEDIA_LIMIT + 1}" if _alike(found) else f"is the {MEDIA_LIMIT + 1}th"
        violations.add(_whole(spec, field, kind_found), f"{what}; the limit is {MEDIA_LIMIT}")
        return
    for field, kind_found, each in found:
        _check(each, kind_found, _whole(spec, field, kind_found), violations)
    if (size := sum(len(each.data) for *_, each in found)) > MEDIA_LIMIT_BYTES:
        field, kind_found, _ = found[-1]
        what = f"{kind_found.noun}s" if _alike(found) else "images and audio clips"
        all_of_them = f"all {len(found)} {what} have {size} bytes; the limit is {MEDIA_LIMIT_BYTES}"
        violations.add(_whole(spec, field, kind_found), all_of_them)


def _alike(found: Sequence[Found]) -> bool:
    return len({kind for _, kind, _ in found}) == 1


def _whole(spec: inference_pb2.GenerationSpec, field: str, kind: MediaKind) -> str:
    """Return the path of the content itself, which is a member of a part in a chat."""
    return f"{field}.{kind}" if spec.WhichOneof("prompt") == "chat" else field


def _check(each: inference_pb2.Media, kind: MediaKind, field: str, violations: Violations) -> None:
    limit, types = kind.limit_bytes, kind.types
    if each.WhichOneof("source") == "uri":
        violations.add(f"{field}.uri", f"is not fetched; send the {kind.noun} itself, as data")
    elif not each.data:
        violations.add(f"{field}.data", "is empty")
    elif len(each.data) > limit:
        violations.add(f"{field}.data", f"has {len(each.data)} bytes; the limit is {limit}")
    if each.mime_type and media_type(each.mime_type) not in types:
        violations.add(f"{field}.mime_type", f"is {each.mime_type[:64]!r}; there are: {', '.join(sorted(types))}")


def _in_prompt(spec: inference_pb2.GenerationSpec) -> Iterator[Found]:
    """Yield what is not text in a prompt, in its order."""
    if spec.WhichOneof("prompt") != "chat":
        yield from _in_tokens(spec)
        return
    for turn, message in enumerate(spec.chat.messages):
        for index, part in enumerate(message.content):
            for kind in MediaKind:
                if part.WhichOneof("part") == kind:
                    yield f"spec.chat.messages[{turn}].content[{index}]", kind, getattr(part, kind)


def _in_tokens(found: WithMedia) -> Iterator[Found]:
    for kind, media in ((MediaKind.IMAGE, found.images), (MediaKind.AUDIO, found.audio)):
        yield from ((f"spec.{kind.field}[{index}]", kind, each) for index, each in enumerate(media))


def of_prompt(spec: inference_pb2.GenerationSpec) -> tuple[Media, ...]:
    """Return the media of a prompt, whose sources ``check`` has seen, in the order of the prompt."""
    return tuple(Media(kind=kind, data=each.data, field=field) for field, kind, each in _in_prompt(spec))


def to_wire(media: Sequence[Media], kind: MediaKind) -> list[inference_pb2.Media]:
    """Convert the media of a kind for an executor, or for the journal."""
    return [inference_pb2.Media(data=each.data) for each in of_kind(media, kind)]


def from_wire(found: WithMedia) -> tuple[Media, ...]:
    """Return the media of what an executor holds, or of what the journal has."""
    return tuple(Media(kind=kind, data=each.data, field=field) for field, kind, each in _in_tokens(found))
