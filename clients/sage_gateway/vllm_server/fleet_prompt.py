"""A prompt as vLLM's server rendered it, and as the fleet is sent it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sage_client import FieldViolation, GenerateOptions, Image, InvalidRequestError


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetPrompt:
    """A prompt of token ids, with the images that stand in it."""

    text: str | None  # where it is known
    token_ids: list[int]  # as the engine computes them: those of images are in their place
    sent: list[int]  # with one placeholder for each image
    images: Sequence[Image] = ()

    def for_sdk(self) -> GenerateOptions:
        """Return what the SDK's ``generate`` takes of it."""
        found = GenerateOptions(token_ids=self.sent)
        if self.images:
            found["images"] = self.images
        return found


def with_images(text: str | None, prompt: Any, images: Sequence[Image], placeholder: int | None) -> FleetPrompt:
    """Return a prompt in which vLLM has put the tokens of images in the place of their placeholders.

    ``images``: of the HTTP request.  ``placeholder``: the model's token for an image.

    Raises InvalidRequestError if they are not those that vLLM found in the conversation.
    """
    token_ids, places = list(prompt["prompt_token_ids"]), prompt["mm_placeholders"]
    found = sorted(((each.offset, each.length) for each in places.get("image", ())), reverse=True)
    if placeholder is None or set(places) != {"image"} or len(found) != len(images):
        fault = FieldViolation(
            field="messages", description="only text and images of messages can be sent to this model"
        )
        raise InvalidRequestError.of([fault])
    sent = list(token_ids)
    for offset, length in found:  # from the last one on: the places before it stay where they are
        sent[offset : offset + length] = [placeholder]
    return FleetPrompt(text=text, token_ids=cast("list[int]", token_ids), sent=sent, images=images)
