"""Images and audio of prompts on the wire: their bounds, and their conversion in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from sage.controlplane.v1 import inference_pb2
from sage_media.kinds import MEDIA_LIMIT, MEDIA_LIMIT_BYTES, MediaKind
from sage_media.urls import media_type
from scheduler_svc.domain.media import Media, of_kind
from scheduler_svc.transport.violations import Violations


class _Found(NamedTuple):
    """Content of a prompt, and where it stands."""

    field: str  # path in the contract of the content, or of the part of a chat that has it
    path: str  # path of the content itself
    kind: MediaKind
    content: inference_pb2.Media


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
    if spec.WhichOneof("prompt") != "tokens" and (spec.images or spec.audio):
        field = "spec.images" if spec.images else "spec.audio"
        violations.add(field, "are for prompts of tokens; the messages of a chat have their own")
        return
    found = list(_in_prompt(spec))
    nouns = " or ".join(dict.fromkeys(each.kind.noun for each in found))
    if len(found) > MEDIA_LIMIT:
        violations.add(found[MEDIA_LIMIT].path, f"is {nouns} {MEDIA_LIMIT + 1}; the limit is {MEDIA_LIMIT}")
        return
    for each in found:
        _check(each, violations)
    if (size := sum(len(each.content.data) for each in found)) > MEDIA_LIMIT_BYTES:
        what = f"with this one, {len(found)} have {size} bytes together; the limit is {MEDIA_LIMIT_BYTES}"
        violations.add(found[-1].path, what)


def _check(found: _Found, violations: Violations) -> None:
    content, limit, types = found.content, found.kind.limit_bytes, found.kind.types
    if content.WhichOneof("source") == "uri":
        violations.add(f"{found.path}.uri", f"is not fetched; send the {found.kind.noun} itself, as data")
    elif not content.data:
        violations.add(f"{found.path}.data", "is empty")
    elif len(content.data) > limit:
        violations.add(f"{found.path}.data", f"has {len(content.data)} bytes; the limit is {limit}")
    if content.mime_type and media_type(content.mime_type) not in types:
        what = f"is {content.mime_type[:64]!r}; there are: {', '.join(sorted(types))}"
        violations.add(f"{found.path}.mime_type", what)


def _in_prompt(spec: inference_pb2.GenerationSpec) -> Iterator[_Found]:
    """Yield what is not text in a prompt, in its order."""
    if spec.WhichOneof("prompt") != "chat":
        yield from _beside_tokens(spec)
        return
    for turn, message in enumerate(spec.chat.messages):
        for index, part in enumerate(message.content):
            for kind in MediaKind:
                if part.WhichOneof("part") == kind:
                    field = f"spec.chat.messages[{turn}].content[{index}]"
                    yield _Found(field=field, path=f"{field}.{kind}", kind=kind, content=getattr(part, kind))


def _beside_tokens(message: WithMedia) -> Iterator[_Found]:
    for kind, media in ((MediaKind.IMAGE, message.images), (MediaKind.AUDIO, message.audio)):
        for index, each in enumerate(media):
            field = f"spec.{kind.field}[{index}]"
            yield _Found(field=field, path=field, kind=kind, content=each)


def of_prompt(spec: inference_pb2.GenerationSpec) -> tuple[Media, ...]:
    """Return the media of a prompt, whose sources ``check`` has seen, in the order of the prompt."""
    return _converted(_in_prompt(spec))


def to_wire(media: Sequence[Media], kind: MediaKind) -> list[inference_pb2.Media]:
    """Convert the media of a kind for an executor, or for the journal."""
    return [inference_pb2.Media(data=each.data) for each in of_kind(media, kind)]


def from_wire(message: WithMedia) -> tuple[Media, ...]:
    """Return the media of what an executor holds, or of what the journal has."""
    return _converted(_beside_tokens(message))


def _converted(found: Iterable[_Found]) -> tuple[Media, ...]:
    return tuple(Media(kind=each.kind, data=each.content.data, field=each.field) for each in found)
