"""Prompts with images: what models take, what a prompt's length is, and who may serve it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scheduler_svc.domain import admission
from scheduler_svc.domain.images import Image, ImageInput, field_of_image
from scheduler_svc.domain.pd.router import Shape, determine_request_phase
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.placement.filters import cannot_serve
from scheduler_svc.domain.request import Request, Sampling
from tests.contract.policies.modelled_fleet import make_facts, make_request

PLACEHOLDER, MOST_TOKENS = 7, 20
TAKES = ImageInput(placeholder_token_id=PLACEHOLDER, most_tokens=MOST_TOKENS, most_images=2)
FACTS = make_facts(vocab_size=100, max_model_len=200, image_input=TAKES)
ONE, TWO = Image(data=b"one", field="spec.images[0]"), Image(data=b"two", field="spec.images[1]")


def with_images(*images: Image, ids: tuple[int, ...] = (1, PLACEHOLDER, 2), **changes: Any) -> Request:
    made = replace(make_request(1, output=10), prompt_token_ids=ids, images=images)
    return replace(made, image_tokens=len(images) * (MOST_TOKENS - 1), **changes)


def faults(request: Request, facts: Any = FACTS) -> dict[str, str]:
    return {each.field: each.description for each in admission.check(request, facts)}


def test_a_prompt_is_as_long_as_its_images_may_make_it() -> None:
    request = with_images(ONE)
    assert request.prompt_tokens == 3 - 1 + MOST_TOKENS
    assert request.total_tokens == request.prompt_tokens + 10
    assert faults(request) == {}


def test_images_that_fill_the_model_are_refused() -> None:
    small = make_facts(vocab_size=100, max_model_len=25, image_input=TAKES)
    assert "prompt of 22" in faults(with_images(ONE), small)["spec.sampling.max_tokens"]


def test_a_model_that_takes_text_only_names_each_image() -> None:
    text = make_facts(vocab_size=100, max_model_len=200)
    found = faults(with_images(ONE, TWO), text)
    assert found.keys() == {ONE.field, TWO.field}
    assert "takes text only" in found[ONE.field]


def test_more_images_than_the_model_takes() -> None:
    found = faults(with_images(ONE, TWO, Image(data=b"three", field="spec.images[2]")))
    assert found == {"spec.images[2]": "is image 3; the model takes 2"}


def test_placeholders_and_images_agree() -> None:
    assert "has 0 placeholders" in faults(with_images(ONE, ids=(1, 2)))["spec.prompt"]
    assert "has 2 placeholders" in faults(with_images(ONE, ids=(PLACEHOLDER, PLACEHOLDER)))["spec.prompt"]
    assert faults(with_images(ids=(1, PLACEHOLDER))) == {}, "without images it is a token like any other"


def test_log_probabilities_of_a_prompt_with_images_are_refused() -> None:
    found = faults(with_images(ONE, sampling=Sampling(max_tokens=10, prompt_logprobs=1)))
    assert found.keys() == {"spec.sampling.prompt_logprobs"}


def test_only_instances_that_take_the_images_serve_the_request() -> None:
    request = with_images(ONE)
    total = request.total_tokens
    assert cannot_serve(FACTS, request, total) is None
    for facts, words in (
        (make_facts(max_model_len=200), "takes text only"),
        (make_facts(max_model_len=200, image_input=replace(TAKES, most_tokens=21)), "up to 21 tokens"),
    ):
        refused = cannot_serve(facts, request, total)
        assert refused is not None
        assert refused[0] == "images"
        assert words in refused[1]


def test_a_request_with_images_is_not_split() -> None:
    shape = Shape(prompt_tokens=1000, output_tokens=100, max_tokens=100, images=True)
    assert not determine_request_phase(shape, PdSettings(mode=SplitMode.ALWAYS)).split


def test_an_engines_fault_is_told_at_the_callers_place() -> None:
    there = Image(data=b"x", field="spec.chat.messages[3].content[1]")
    assert field_of_image("spec.images[1]", (ONE, there)) == there.field
    assert field_of_image("spec.images[2]", (ONE, there)) == "spec.images[2]"
    assert field_of_image("spec.sampling.seed", (ONE,)) == "spec.sampling.seed"
