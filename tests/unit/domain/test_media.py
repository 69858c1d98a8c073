"""Prompts with images and audio: what models take, what a prompt's length is, and who may serve it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sage_media.kinds import MediaInput, MediaKind
from scheduler_svc.domain import admission
from scheduler_svc.domain.media import Media, field_of_media, tokens_of
from scheduler_svc.domain.pd.router import Shape, determine_request_phase
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.placement.filters import cannot_serve
from scheduler_svc.domain.request import Request, Sampling
from tests.contract.policies.modelled_fleet import make_facts, make_request

PLACEHOLDER, MOST_TOKENS = 7, 20
TAKES = MediaInput(kind=MediaKind.IMAGE, placeholder_token_id=PLACEHOLDER, most_tokens=MOST_TOKENS, most=2)
FACTS = make_facts(vocab_size=100, max_model_len=200, media=(TAKES,))
ONE, TWO = Media(data=b"one", field="spec.images[0]"), Media(data=b"two", field="spec.images[1]")
HEARS = MediaInput(
    kind=MediaKind.AUDIO, placeholder_token_id=8, most_tokens=50, most=1, most_seconds=30.0, rate_hz=16_000
)
BOTH = make_facts(vocab_size=100, max_model_len=200, media=(TAKES, HEARS))
CLIP = Media(kind=MediaKind.AUDIO, data=b"clip", field="spec.audio[0]")


def with_media(*media: Media, ids: tuple[int, ...] = (1, PLACEHOLDER, 2), **changes: Any) -> Request:
    made = replace(make_request(1, output=10), prompt_token_ids=ids, media=media)
    return replace(made, media_tokens=tokens_of(media, (TAKES, HEARS)), **changes)


def faults(request: Request, facts: Any = FACTS) -> dict[str, str]:
    return {each.field: each.description for each in admission.check(request, facts)}


def test_a_prompt_is_as_long_as_its_images_may_make_it() -> None:
    request = with_media(ONE)
    assert request.prompt_tokens == 3 - 1 + MOST_TOKENS
    assert request.total_tokens == request.prompt_tokens + 10
    assert faults(request) == {}


def test_images_that_fill_the_model_are_refused() -> None:
    small = make_facts(vocab_size=100, max_model_len=25, media=(TAKES,))
    assert "prompt of 22" in faults(with_media(ONE), small)["spec.sampling.max_tokens"]


def test_a_model_that_takes_text_only_names_each_image() -> None:
    text = make_facts(vocab_size=100, max_model_len=200)
    found = faults(with_media(ONE, TWO), text)
    assert found.keys() == {ONE.field, TWO.field}
    assert "takes text only" in found[ONE.field]


def test_more_images_than_the_model_takes() -> None:
    found = faults(with_media(ONE, TWO, Media(data=b"three", field="spec.images[2]")))
    assert found == {"spec.images[2]": "is image 3; the model takes 2"}


def test_placeholders_and_images_agree() -> None:
    assert "has 0 placeholders" in faults(with_media(ONE, ids=(1, 2)))["spec.prompt"]
    assert "has 2 placeholders" in faults(with_media(ONE, ids=(PLACEHOLDER, PLACEHOLDER)))["spec.prompt"]
    assert faults(with_media(ids=(1, PLACEHOLDER))) == {}, "without images it is a token like any other"


def test_images_and_audio_of_a_prompt_count_by_what_each_may_take() -> None:
    request = with_media(CLIP, ONE, ids=(8, 1, PLACEHOLDER))
    assert request.prompt_tokens == 1 + MOST_TOKENS + 50
    assert faults(request, BOTH) == {}
    assert cannot_serve(BOTH, request, request.total_tokens) is None


def test_audio_for_a_model_that_takes_none_is_refused_with_what_it_takes() -> None:
    request = with_media(CLIP, ONE, ids=(8, 1, PLACEHOLDER))
    assert faults(request) == {CLIP.field: "is an audio clip; model 'tiny' takes text and images"}
    text = faults(request, make_facts(vocab_size=100, max_model_len=200))
    assert text.keys() == {CLIP.field, ONE.field}
    refused = cannot_serve(FACTS, request, request.total_tokens)
    assert refused == ("media", "takes text and images; the request has 1 audio clips")


def test_clips_and_their_placeholders_agree() -> None:
    two = (CLIP, replace(CLIP, field="spec.audio[1]"))
    assert faults(with_media(*two, ids=(8, 8)), BOTH) == {"spec.audio[1]": "is audio clip 2; the model takes 1"}
    found = faults(with_media(CLIP, ids=(PLACEHOLDER,)), BOTH)
    assert found == {"spec.prompt": "has 0 placeholders (token 8) for 1 audio clips"}


def test_log_probabilities_of_a_prompt_with_images_are_refused() -> None:
    found = faults(with_media(ONE, sampling=Sampling(max_tokens=10, prompt_logprobs=1)))
    assert found.keys() == {"spec.sampling.prompt_logprobs"}


def test_only_instances_that_take_the_images_serve_the_request() -> None:
    request = with_media(ONE)
    total = request.total_tokens
    assert cannot_serve(FACTS, request, total) is None
    for facts, words in (
        (make_facts(max_model_len=200), "takes text only"),
        (make_facts(max_model_len=200, media=(replace(TAKES, most_tokens=21),)), "up to 20 tokens beside"),
    ):
        refused = cannot_serve(facts, request, total)
        assert refused is not None
        assert refused[0] == "media"
        assert words in refused[1]


def test_a_request_with_images_is_not_split() -> None:
    shape = Shape(prompt_tokens=1000, output_tokens=100, max_tokens=100, media=True)
    assert not determine_request_phase(shape, PdSettings(mode=SplitMode.ALWAYS)).split


def test_an_engines_fault_is_told_at_the_callers_place() -> None:
    there = Media(data=b"x", field="spec.chat.messages[3].content[1]")
    assert field_of_media("spec.images[1]", (ONE, there)) == there.field
    assert field_of_media("spec.images[2]", (ONE, there)) == "spec.images[2]"
    assert field_of_media("spec.sampling.seed", (ONE,)) == "spec.sampling.seed"
    assert field_of_media("spec.audio[0]", (ONE, replace(CLIP, field=there.field))) == there.field
