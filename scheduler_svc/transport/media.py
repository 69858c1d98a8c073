"""Images of prompts on the wire: their bounds, and their conversion in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sage.controlplane.v1 import inference_pb2
from sage_wire.protocol import IMAGE_LIMIT_BYTES, IMAGE_TYPES, IMAGES_LIMIT, IMAGES_LIMIT_BYTES
from scheduler_svc.domain.images import Image
from scheduler_svc.transport.violations import Violations


def check(spec: inference_pb2.GenerationSpec, violations: Violations) -> None:
    """Add a violation for every bound of a prompt's images that is exceeded, and for each that is not here."""
    kind = spec.WhichOneof("prompt")
    if spec.images and kind != "tokens":
        violations.add("spec.images", "are for prompts of tokens; the messages of a chat have their own")
        return
    found = list(_in_chat(spec.chat)) if kind == "chat" else _in_tokens(spec.images)
    if len(found) > IMAGES_LIMIT:
        violations.add(found[IMAGES_LIMIT][0], f"is image {IMAGES_LIMIT + 1}; the limit is {IMAGES_LIMIT}")
        return
    for field, each in found:
        _check(each, field, violations)
    if (size := sum(len(each.data) for _, each in found)) > IMAGES_LIMIT_BYTES:
        violations.add(found[-1][0], f"all {len(found)} images have {size} bytes; the limit is {IMAGES_LIMIT_BYTES}")


def _check(each: inference_pb2.Media, field: str, violations: Violations) -> None:
    if each.WhichOneof("source") == "uri":
        violations.add(f"{field}.uri", "is not fetched; send the image itself, as data")
    elif not each.data:
        violations.add(f"{field}.data", "is empty")
    elif len(each.data) > IMAGE_LIMIT_BYTES:
        violations.add(f"{field}.data", f"has {len(each.data)} bytes; the limit is {IMAGE_LIMIT_BYTES}")
    if each.mime_type and each.mime_type not in IMAGE_TYPES:
        violations.add(f"{field}.mime_type", f"is {each.mime_type[:64]!r}; there are: {', '.join(sorted(IMAGE_TYPES))}")


def _in_tokens(images: Sequence[inference_pb2.Media]) -> list[tuple[str, inference_pb2.Media]]:
    return [(f"spec.images[{index}]", each) for index, each in enumerate(images)]


def _in_chat(chat: inference_pb2.Chat) -> Iterator[tuple[str, inference_pb2.Media]]:
    for turn, message in enumerate(chat.messages):
        for index, part in enumerate(message.content):
            if part.HasField("image"):
                yield f"spec.chat.messages[{turn}].content[{index}].image", part.image


def to_wire(image: Image) -> inference_pb2.Media:
    """Convert an image for an executor, or for the journal."""
    return inference_pb2.Media(data=image.data)


def from_wire(images: Sequence[inference_pb2.Media]) -> tuple[Image, ...]:
    """Return the images of what an executor holds, or of what the journal has."""
    return tuple(Image(data=each.data, field=f"spec.images[{index}]") for index, each in enumerate(images))
