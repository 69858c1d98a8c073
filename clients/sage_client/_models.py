"""The models that the fleet serves, and their files."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field

from sage.controlplane.v1 import inference_pb2
from sage_client._errors import ProtocolError
from sage_client._plain import Plain
from sage_wire.protocol import TOKENIZER_LIMIT_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioInput(Plain):
    """How a model takes audio."""

    placeholder_token_id: int  # stands for a clip in a prompt of token ids
    most_tokens: int  # that a clip takes
    most_clips: int  # that a prompt may have
    most_seconds: float  # that a clip may last
    rate_hz: int  # samples per second that the model takes; executors convert others


@dataclass(frozen=True, kw_only=True, slots=True)
class Model(Plain):
    """A model that the fleet serves."""

    name: str  # what requests ask for
    embeds: bool  # whether it takes ``embed``, rather than ``generate``
    classifies: bool  # with ``embeds``: its vectors have one number per class, such as the score of a pair of texts
    instances: int  # those that are not lost and not failed
    ready: int  # instances that take requests now
    waiting: int  # requests in its queue
    max_model_len: int | None  # tokens of prompt and output; None: no instance has been ready yet
    vocab_size: int | None  # token ids are below it; None: no instance has been ready yet
    dtype: str  # data type of the weights; empty: no instance has been ready yet
    tokenizer_hash: str  # SHA-256 of the tokenizer files, hex; empty: no instance has been ready yet
    adapters: tuple[str, ...]  # LoRA adapters, by name
    revisions: tuple[str, ...]  # of the weights; more than one while a fleet is updated
    files_hash: str  # changes with the model's files; empty: no instance has been ready yet
    most_images: int = 0  # that a prompt may have; 0: it takes none
    image_placeholder_token_id: int | None = None  # stands for an image in a prompt of token ids; None: it takes none
    audio_input: AudioInput | None = None  # how it takes audio; None: it takes none


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """The files with which a front end tokenizes for a model.  No weights."""

    model: Model
    config_json: str  # content of config.json; empty: the model's executors do not send it
    generation_config_json: str  # content of generation_config.json; empty: the model has none
    tokenizer: bytes  # a JSON document with tokenizer_json, chat_template and special_tokens
    processor_files: Mapping[str, str] = field(
        default_factory=dict
    )  # how the model's images and audio are processed, by file name


def decode_model(message: inference_pb2.ModelView) -> Model:
    """Decode one model."""
    return Model(
        name=message.model,
        embeds=message.embeds,
        classifies=message.classifies,
        instances=message.instances,
        ready=message.ready_instances,
        waiting=message.waiting,
        max_model_len=message.max_model_len or None,
        vocab_size=message.vocab_size or None,
        dtype=message.dtype,
        tokenizer_hash=message.tokenizer_hash,
        adapters=tuple(message.adapters),
        revisions=tuple(message.revisions),
        most_images=message.most_images,
        image_placeholder_token_id=message.image_placeholder_token_id if message.most_images else None,
        audio_input=_audio_input(message.audio_input) if message.HasField("audio_input") else None,
        files_hash=message.files_hash,
    )


def _audio_input(message: inference_pb2.AudioInput) -> AudioInput:
    return AudioInput(
        placeholder_token_id=message.placeholder_token_id,
        most_tokens=message.most_tokens,
        most_clips=message.most_clips,
        most_seconds=message.most_seconds,
        rate_hz=message.rate_hz,
    )


async def collect_files(messages: AsyncIterable[inference_pb2.GetModelFilesResponse]) -> ModelFiles:
    """Put the pieces of a model's files together.

    Raises ProtocolError if the configuration is missing, or the tokenizer has more than TOKENIZER_LIMIT_BYTES.
    """
    configuration: inference_pb2.ModelConfiguration | None = None
    tokenizer = bytearray()
    async for message in messages:
        if message.HasField("configuration"):
            configuration = message.configuration
        tokenizer += message.tokenizer
        if len(tokenizer) > TOKENIZER_LIMIT_BYTES:
            raise ProtocolError(f"the tokenizer has more than {TOKENIZER_LIMIT_BYTES} bytes")
    if configuration is None:
        raise ProtocolError("the scheduler sent no configuration of the model")
    return ModelFiles(
        model=decode_model(configuration.model),
        config_json=configuration.config_json,
        generation_config_json=configuration.generation_config_json,
        processor_files=dict(configuration.processor_files),
        tokenizer=bytes(tokenizer),
    )
