"""How engines take images and audio, as executors report it and as clients are told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from sage.controlplane.v1 import executor_pb2, inference_pb2
from sage_media.audio_samples import AUDIO_LIMIT_SECONDS, RATES_HZ
from sage_media.kinds import MEDIA_LIMIT, MediaInput, MediaKind, input_of
from scheduler_svc.domain.engine_facts import EngineFacts


def from_wire(facts: executor_pb2.EngineFacts) -> tuple[MediaInput, ...]:
    """Return how an engine takes each kind of media.  Raises ValueError for facts that cannot be true."""
    return tuple(_inputs(facts))


def _inputs(facts: executor_pb2.EngineFacts) -> Iterator[MediaInput]:
    if facts.HasField("image_input"):
        image = facts.image_input
        if not image.most_tokens or not image.most_images:
            raise ValueError("facts.image_input", "must have most_tokens and most_images above zero")
        yield MediaInput(
            kind=MediaKind.IMAGE,
            placeholder_token_id=image.placeholder_token_id,
            most_tokens=image.most_tokens,
            most=min(image.most_images, MEDIA_LIMIT),
        )
    if facts.HasField("audio_input"):
        audio = facts.audio_input
        lowest, highest = RATES_HZ
        if not (audio.most_tokens and audio.most_clips):
            raise ValueError("facts.audio_input", "must have most_tokens and most_clips above zero")
        if not lowest <= audio.rate_hz <= highest:
            raise ValueError("facts.audio_input.rate_hz", f"is {audio.rate_hz}; it must be {lowest} to {highest}")
        if not (math.isfinite(audio.most_seconds) and audio.most_seconds > 0):
            raise ValueError("facts.audio_input.most_seconds", "must be above zero")
        yield MediaInput(
            kind=MediaKind.AUDIO,
            placeholder_token_id=audio.placeholder_token_id,
            most_tokens=audio.most_tokens,
            most=min(audio.most_clips, MEDIA_LIMIT),
            most_seconds=min(audio.most_seconds, AUDIO_LIMIT_SECONDS),
            rate_hz=audio.rate_hz,
        )


def show(view: inference_pb2.ModelView, engines: Iterable[EngineFacts]) -> None:
    """Write into a model's view what its engines take; of engines that differ, the first that takes a kind counts."""
    inputs = [each for facts in engines for each in facts.media]
    if (image := input_of(inputs, MediaKind.IMAGE)) is not None:
        view.most_images = image.most
        view.image_placeholder_token_id = image.placeholder_token_id
    if (audio := input_of(inputs, MediaKind.AUDIO)) is not None:
        view.audio_input.placeholder_token_id = audio.placeholder_token_id
        view.audio_input.most_tokens = audio.most_tokens
        view.audio_input.most_clips = audio.most
        view.audio_input.most_seconds = audio.most_seconds
        view.audio_input.rate_hz = audio.rate_hz
