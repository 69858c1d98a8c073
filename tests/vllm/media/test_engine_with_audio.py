"""A real engine's answers about audio: those of vLLM given the samples, and clear refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import pytest_asyncio

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm import facts, media_input
from executor_svc.engine.vllm.models import ResolvedModel
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.runtime.engine_port import EngineRequest, InvalidRequestError
from sage_media.kinds import MediaKind
from tests.support.sounds import encoded, tone, wav
from tests.vllm.media import asked_engine
from tests.vllm.media.asked_engine import asked_directly, tokens_of
from tests.vllm.media.audio_model import MOST_TOKENS, RATE_HZ, SECONDS, TEMPLATE, clip_tokens

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

Encode = Callable[[str], list[int]]
Sounds = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engine(audio_model: Path) -> AsyncIterator[VllmEngine]:
    async with asked_engine.started(audio_model, max_model_len=2048) as engine:
        yield engine


def request(name: str, prompt: Sequence[int], clips: Sequence[bytes], **more: Any) -> EngineRequest:
    return asked_engine.request(name, prompt, MediaKind.AUDIO, clips, MOST_TOKENS, **more)


async def test_its_speed_was_measured_with_prompts_and_with_four_outputs_together(engine: VllmEngine) -> None:
    assert {0, 4} <= {each.decode_tokens for each in engine.facts.measured}


async def test_it_says_how_it_takes_audio(engine: VllmEngine, encode_for_audio: Encode) -> None:
    [takes] = engine.facts.media
    assert takes.kind is MediaKind.AUDIO
    assert [takes.placeholder_token_id] == encode_for_audio("<|AUDIO|>")
    assert (takes.most_tokens, takes.most_seconds, takes.rate_hz) == (MOST_TOKENS, SECONDS, RATE_HZ)
    assert takes.most >= 16
    assert "preprocessor_config.json" in engine.facts.processor_files


async def test_conversations_are_rendered_with_the_processors_template_if_it_has_one(engine: VllmEngine) -> None:
    assert engine.facts.tokenizer is not None
    assert engine.facts.tokenizer.chat_template == TEMPLATE
    assert media_input.processor_chat_template(engine._llm.vllm_config.model_config) == TEMPLATE


async def test_without_the_libraries_for_audio_it_takes_none_and_has_the_processors_template_all_the_same(
    engine: VllmEngine, audio_model: Path
) -> None:
    """Else it would count as another model than that of executors that have them."""
    model, resolved = ModelSettings(model="m"), ResolvedModel(path=str(audio_model), revision=None, chat_template=None)
    with (
        patch.object(media_input, "missing_libraries", return_value=("soundfile",)),
        patch.object(facts, "processor_chat_template", return_value="of the processor"),
    ):
        found = facts.engine_facts(engine._llm, model, VllmSettings(), resolved, engine._gpus)
    assert found.media == ()
    assert found.tokenizer is not None
    assert found.tokenizer.chat_template == "of the processor"


async def test_the_same_tokens_as_vllm_given_the_samples(
    engine: VllmEngine, encode_for_audio: Encode, sounds: Sounds
) -> None:
    prompt = encode_for_audio("<|im_start|>user\n<|AUDIO|>What is it?<|im_end|>\n<|im_start|>assistant\n")
    answers = {}
    for name, samples in sounds.items():
        answers[name] = await tokens_of(engine, request(name, prompt, [wav(samples)]))
        given = (samples * 32767).astype("<i2") / np.float32(32768)  # what 16 bits leave of them
        assert answers[name] == await asked_directly(engine, name, prompt, {"audio": [given]}), name
    assert len({tuple(each) for each in answers.values()}) == len(sounds), "the sounds count"


async def test_formats_without_loss_are_the_same_sound(
    engine: VllmEngine, encode_for_audio: Encode, sounds: Sounds
) -> None:
    prompt = encode_for_audio("<|AUDIO|>What is it?")
    one = await tokens_of(engine, request("wav", prompt, [wav(sounds["low"])]))
    stereo = wav(np.stack([sounds["low"]] * 2, axis=1))
    assert one == await tokens_of(engine, request("flac", prompt, [encoded(sounds["low"], RATE_HZ, "FLAC")]))
    assert one == await tokens_of(engine, request("stereo", prompt, [stereo]))


async def test_clips_at_other_rates_are_answered(engine: VllmEngine, encode_for_audio: Encode) -> None:
    prompt = encode_for_audio("<|AUDIO|>What is it?")
    for name, rate in (("MP3", 44_100), ("OGG", 48_000), ("FLAC", 8_000)):
        clip = encoded(tone(440, 1.0, rate), rate, name)
        assert len(await tokens_of(engine, request(name, prompt, [clip]))) == asked_engine.TOKENS


async def test_several_clips_count_in_their_order(engine: VllmEngine, encode_for_audio: Encode, sounds: Sounds) -> None:
    prompt = encode_for_audio("<|AUDIO|> and <|AUDIO|> differ")
    low, noise = wav(sounds["low"]), wav(sounds["noise"])
    one = await tokens_of(engine, request("one", prompt, [low, noise]))
    assert one != await tokens_of(engine, request("other", prompt, [noise, low]))
    assert one == await tokens_of(engine, request("again", prompt, [low, noise]))


async def test_it_goes_on_after_an_output_history(engine: VllmEngine, encode_for_audio: Encode, sounds: Sounds) -> None:
    assert engine.facts.keeps_output_history
    prompt, clip = encode_for_audio("<|AUDIO|>Go on: "), wav(sounds["high"])
    whole = await tokens_of(engine, request("whole", prompt, [clip]))
    assert whole[9:] == await tokens_of(engine, request("rest", prompt, [clip], output_history=whole[:9]))


async def test_many_at_once_are_not_mixed_up(engine: VllmEngine, encode_for_audio: Encode, sounds: Sounds) -> None:
    prompt = encode_for_audio("<|AUDIO|>Which one?")
    clips = {name: wav(samples) for name, samples in sounds.items()}
    alone = {name: await tokens_of(engine, request(f"{name}-alone", prompt, [clip])) for name, clip in clips.items()}
    together = await asyncio.gather(
        *(tokens_of(engine, request(f"{name}-together", prompt, [clip])) for name, clip in clips.items())
    )
    assert dict(zip(clips, together, strict=True)) == alone


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (b"noise", "cannot be decoded"),
        (wav(tone(440, SECONDS + 0.1, 8_000), 8_000), "is longer than 30 s"),
        (wav(tone(440, 0.005)), "is shorter than 0.1 s"),
    ],
    ids=["noise", "long", "short"],
)
async def test_a_clip_that_cannot_be_taken_is_refused(
    engine: VllmEngine, encode_for_audio: Encode, clip: bytes, words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words) as refused:
        await tokens_of(engine, request("bad", encode_for_audio("<|AUDIO|>What?"), [clip]))
    assert refused.value.field_name == "audio[0]"


async def test_the_longest_clip_is_taken_whole(engine: VllmEngine, encode_for_audio: Encode) -> None:
    prompt = encode_for_audio("<|AUDIO|>What?")
    assert clip_tokens(SECONDS) == MOST_TOKENS
    longest = wav(tone(440, SECONDS, 8_000), 8_000)
    assert len(await tokens_of(engine, request("longest", prompt, [longest]))) == asked_engine.TOKENS


async def test_a_clip_without_placeholder_is_refused(
    engine: VllmEngine, encode_for_audio: Encode, sounds: Sounds
) -> None:
    with pytest.raises(InvalidRequestError, match="for 0 placeholders"):
        await tokens_of(engine, request("none", encode_for_audio("What?"), [wav(sounds["low"])]))


async def test_an_executor_without_the_libraries_offers_none(
    engine: VllmEngine, caplog: pytest.LogCaptureFixture
) -> None:
    config = engine._llm.vllm_config.model_config
    with patch.object(media_input, "missing_libraries", lambda: ("soundfile", "soxr")):
        assert media_input.media_inputs_of(config) == ()
    assert "lacks soundfile, soxr: pip install 'sage-control-plane[audio]'" in caplog.text
