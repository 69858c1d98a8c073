"""A prompt as vLLM's server rendered it, and as the fleet is sent it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sage_client import Audio, FieldViolation, GenerateOptions, Image, InvalidRequestError
from sage_gateway.conversation_media import Media
from sage_media.kinds import MediaKind


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetPrompt:
    """A prompt of token ids, with the images and audio that stand in it."""

    text: str | None  # where it is known
    token_ids: list[int]  # as the engine computes them: those of images and audio are in their place
    sent: list[int]  # with one placeholder for each image and each clip
    media: Sequence[Media] = ()

    def for_sdk(self) -> GenerateOptions:
        """Return what the SDK's ``generate`` takes of it."""
        found = GenerateOptions(token_ids=self.sent)
        if images := [each for each in self.media if isinstance(each, Image)]:
            found["images"] = images
        if audio := [each for each in self.media if isinstance(each, Audio)]:
            found["audio"] = audio
        return found


def with_media(
    text: str | None, prompt: Any, media: Sequence[Media], placeholders: Mapping[MediaKind, int]
) -> FleetPrompt:
    """Return a prompt in which vLLM has put the tokens of images and audio in the place of their placeholders.

    ``media``: of the HTTP request.  ``placeholders``: the model's token for each kind that it takes.

    Raises InvalidRequestError if they are not those that vLLM found in the conversation.
    """
    token_ids, places = list(prompt["prompt_token_ids"]), prompt["mm_placeholders"]
    found = sorted(
        ((each.offset, each.length, kind) for kind in placeholders for each in places.get(kind.value, ())), reverse=True
    )
    counts = {kind.value: count for kind in MediaKind if (count := sum(each.kind is kind for each in media))}
    if counts != {name: len(each) for name, each in places.items() if each} or len(found) != len(media):
        fault = FieldViolation(
            field="messages", description="only text, images and audio of messages can be sent to this model"
        )
        raise InvalidRequestError.of([fault])
    sent = list(token_ids)
    for offset, length, kind in found:  # from the last one on: the places before it stay where they are
        sent[offset : offset + length] = [placeholders[kind]]
    return FleetPrompt(text=text, token_ids=cast("list[int]", token_ids), sent=sent, media=media)
