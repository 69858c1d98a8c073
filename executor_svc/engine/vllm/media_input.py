"""Finds out which images and audio a started vLLM engine takes, and makes vLLM's prompts with them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from executor_svc.engine.vllm.errors import first_line
from executor_svc.runtime.engine_port import EngineMedia, EngineRequest, InvalidRequestError
from sage_media.audio_samples import AUDIO_LIMIT_SECONDS, BadAudio, missing_libraries, samples_of
from sage_media.image_headers import bad_image
from sage_media.kinds import MediaInput, MediaKind, input_of

log = logging.getLogger(__name__)

_PLACEHOLDERS = {
    MediaKind.IMAGE: ("image_token_id", "image_token_index"),
    MediaKind.AUDIO: ("audio_token_id", "audio_token_index"),
}
"""Names that models' configurations have for the id of the token that stands for an image, or for a clip."""


def media_inputs_of(config: Any) -> tuple[MediaInput, ...]:
    """Return how an engine takes images and audio; nothing of a kind that it takes in a way unknown here.

    ``config``: vLLM's ModelConfig.
    """
    if not _takes_media(config):
        return ()
    found = (_input_of(config, kind) for kind in MediaKind)
    return tuple(each for each in found if each is not None)


def _takes_media(config: Any) -> bool:
    return getattr(config, "multimodal_config", None) is not None


def _input_of(config: Any, kind: MediaKind) -> MediaInput | None:
    try:
        return _read(config, kind)
    except Exception as error:  # a model's own processor may fail in any way
        log.warning("the engine is offered without %s: its processor failed: %s", kind.field, first_line(error))
        return None


def _read(config: Any, kind: MediaKind) -> MediaInput | None:
    """Process the largest image, or the longest clip, of the model.  Raises what the model's processor raises."""
    from vllm.multimodal import MULTIMODAL_REGISTRY
    from vllm.utils.torch_utils import set_default_torch_num_threads

    processor = MULTIMODAL_REGISTRY.create_processor(config)
    most = processor.info.allowed_mm_limits.get(kind.value, 0)
    named = (getattr(config.hf_config, name, None) for name in _PLACEHOLDERS[kind])
    placeholder = next((id_ for id_ in named if id_ is not None), None)
    if not most:
        return None
    if placeholder is None:
        what = "config.json does not say which token stands for an %s"
        log.warning(f"the engine is offered without %s: {what}", kind.field, kind.noun)
        return None
    if kind is MediaKind.AUDIO and (missing := missing_libraries()):
        what = "it lacks %s: pip install 'sage-control-plane[audio]'"
        log.warning(f"the engine is offered without audio, which its model takes: {what}", ", ".join(missing))
        return None
    with set_default_torch_num_threads():  # as vLLM does where it processes images at its start
        largest = processor.get_dummy_mm_inputs({kind.value: 1}, cache=None)
    [place] = largest["mm_placeholders"][kind.value]
    seconds, rate_hz = _longest_clip(processor, config) if kind is MediaKind.AUDIO else (0.0, 0)
    return MediaInput(
        kind=kind,
        placeholder_token_id=placeholder,
        most_tokens=place.length,
        most=most,
        most_seconds=seconds,
        rate_hz=rate_hz,
    )


def _longest_clip(processor: Any, config: Any) -> tuple[float, int]:
    """Return how many seconds the longest clip of a model has, and its samples per second.

    Raises ValueError for a model that takes several channels, which clips are mixed from.
    """
    parser = processor.info.data_parser
    rate, channels = parser.audio_resampler.target_sr, getattr(parser, "target_channels", None)
    if not rate or channels not in (None, 1):
        raise ValueError(f"it takes audio of {channels} channels at a rate of {rate}")
    data = processor.dummy_inputs.get_dummy_mm_data(config.max_model_len, {"audio": 1}, {})
    samples = len(parser.parse_mm_data(data)["audio"].get(0))
    return min(samples / rate, AUDIO_LIMIT_SECONDS), int(rate)


def processor_chat_template(config: Any) -> str | None:
    """Return the chat template that the processor of a model with media has; None if it has none, or several.

    It does not depend on which media the engine is offered with: engines of one model have one template, whatever
    libraries their executors have.
    """
    if not _takes_media(config):
        return None
    from vllm.multimodal import MULTIMODAL_REGISTRY

    try:
        found = getattr(MULTIMODAL_REGISTRY.create_processor(config).info.get_hf_processor(), "chat_template", None)
    except Exception as error:  # a model's own processor may fail in any way
        log.warning("the chat template is the tokenizer's: the model's processor failed: %s", first_line(error))
        return None
    return found if isinstance(found, str) else None


async def prompt_with_media(request: EngineRequest, inputs: Sequence[MediaInput]) -> dict[str, Any]:
    """Return vLLM's prompt of a request with images or audio, which are decoded in a thread.

    ``inputs``: how the engine takes them.

    Raises InvalidRequestError for what cannot be decoded, and for images or audio with which there is too much.
    """
    by_kind = {kind: [each for each in request.media if each.kind is kind] for kind in MediaKind}
    present = {kind: found for kind, found in by_kind.items() if found}
    return {
        "prompt_token_ids": list(request.prompt_token_ids),
        "multi_modal_data": await asyncio.to_thread(_decoded, present, inputs),
        "multi_modal_uuids": {kind.value: [each.digest for each in found] for kind, found in present.items()},
    }


def forget_media(prompt: dict[str, Any]) -> None:
    """Drop decoded media from a prompt that vLLM has processed, which it keeps for as long as the output takes."""
    prompt.pop("multi_modal_data", None)


def _decoded(present: dict[MediaKind, list[EngineMedia]], inputs: Sequence[MediaInput]) -> dict[str, list[Any]]:
    """Decode media by their kind.  Raises InvalidRequestError."""
    found = {}
    for kind, media in present.items():
        takes = input_of(inputs, kind)
        contents = [each.data for each in media]
        if kind is MediaKind.AUDIO and takes is not None:
            found[kind.value] = _samples(contents, takes)
        else:
            found[kind.value] = _pixels(contents)
    return found


def _samples(clips: Sequence[bytes], takes: MediaInput) -> list[Any]:
    """Decode audio clips at the model's rate.  Raises InvalidRequestError."""
    try:
        return samples_of(clips, takes.rate_hz, takes.most_seconds)
    except BadAudio as error:
        raise InvalidRequestError(f"audio[{error.index}]", str(error)) from error


def _pixels(images: Sequence[bytes]) -> list[Any]:
    """Decode images as vLLM's own server does.  Raises InvalidRequestError."""
    from vllm.multimodal.media import ImageMediaIO

    if (bad := bad_image(images)) is not None:
        raise InvalidRequestError(f"images[{bad[0]}]", bad[1])
    found = []
    for index, each in enumerate(images):
        try:
            found.append(ImageMediaIO().load_bytes(each))
        except Exception as error:  # the library raises many kinds for content that is broken
            raise InvalidRequestError(f"images[{index}]", f"cannot be decoded: {first_line(error)}") from error
    return found
