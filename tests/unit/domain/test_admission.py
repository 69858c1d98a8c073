"""What the caller did wrong is named, field by field, all at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from scheduler_svc.domain import admission
from scheduler_svc.domain.request import Embedding, Request, Sampling, StructuredOutput
from tests.contract.policies.modelled_fleet import make_facts, make_request

FACTS = make_facts(vocab_size=100, max_model_len=200, structured_output_kinds=frozenset({"json_schema", "choice"}))
NAN = float("nan")
INF = float("inf")


def fields(request: Request) -> dict[str, str]:
    return {v.field: v.description for v in admission.check(request, FACTS)}


def sampled(**sampling: Any) -> dict[str, str]:
    """Violations of a request that is right but for its sampling, by field without the common path."""
    found = fields(make_request(1, sampling=Sampling(**{"max_tokens": 10} | sampling)))
    return {field.removeprefix("spec.sampling."): why for field, why in found.items()}


def structured(kind: str, value: str) -> dict[str, str]:
    return sampled(structured_output=StructuredOutput(kind=kind, value=value))


def test_a_right_request_has_no_violations() -> None:
    assert fields(make_request(1, prompt=100, output=100)) == {}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", [-0.1, 2.1, NAN, INF]),
        ("top_p", [0.0, -1.0, 1.1, NAN]),
        ("top_k", [-1]),
        ("min_p", [-0.1, 1.1, NAN]),
        ("presence_penalty", [-2.1, 2.1, NAN]),
        ("frequency_penalty", [-2.1, 2.1, INF]),
        ("repetition_penalty", [0.0, -1.0, 2.1, NAN]),
        ("max_tokens", [0, -5]),
        ("min_tokens", [-1, 11]),
        ("logprobs", [-1]),
        ("prompt_logprobs", [-1]),
        ("seed", [2**63, -(2**63) - 1]),
    ],
)
def test_numbers_out_of_range_are_named(name: str, values: list[Any]) -> None:
    for value in values:
        found = sampled(**{name: value})
        assert name in found, value
        assert str(value) in found[name]


@pytest.mark.parametrize(
    "right",
    [
        {"temperature": 0.0},
        {"temperature": 2.0},
        {"top_p": 1e-9},
        {"top_k": 0},
        {"min_p": 1.0},
        {"presence_penalty": -2.0, "frequency_penalty": 2.0},
        {"repetition_penalty": 2.0},
        {"min_tokens": 10},
        {"logprobs": 0},
        {"seed": -(2**63)},
        {"logit_bias": {0: -100.0, 99: 100.0}},
        {"stop_token_ids": (0, 99), "allowed_token_ids": (5,)},
    ],
)
def test_the_ends_of_the_ranges_are_right(right: dict[str, Any]) -> None:
    assert sampled(**right) == {}


@pytest.mark.parametrize("name", ["stop_token_ids", "allowed_token_ids"])
@pytest.mark.parametrize("token", [-1, 100])
def test_ids_outside_the_vocabulary_are_named(name: str, token: int) -> None:
    assert str(token) in sampled(**{name: (1, token)})[name]


@pytest.mark.parametrize("bias", [{100: 1.0}, {1: 101.0}, {1: NAN}])
def test_a_bias_must_be_for_a_token_and_in_range(bias: dict[int, float]) -> None:
    assert "logit_bias" in sampled(logit_bias=bias)


@pytest.mark.parametrize("name", ["stop", "bad_words"])
def test_strings_must_not_be_empty_or_too_many(name: str) -> None:
    assert "empty" in sampled(**{name: ("a", "")})[name]
    assert "limit" in sampled(**{name: ("a",) * 65})[name]


@pytest.mark.parametrize("blank", [" ", "\n", "\t \u3000"])
def test_bad_words_must_have_more_than_white_space(blank: str) -> None:
    assert "white space" in sampled(bad_words=("a", blank))["bad_words"]
    assert "stop" not in sampled(stop=(blank,)), "output may end at a line break"


def test_an_empty_prompt_is_named() -> None:
    assert fields(make_request(1, prompt=0)) == {"spec.prompt": "is empty"}


@pytest.mark.parametrize("ids", [[1, 100], [100, 5]])
def test_prompt_ids_outside_the_vocabulary_are_named_with_their_place(ids: list[int]) -> None:
    found = fields(make_request(1, prompt_token_ids=ids, largest_token_id=100))

    bad = next(i for i, t in enumerate(ids) if t >= 100)
    assert f"{ids[bad]} at {bad}" in found["spec.tokens.ids"]


def test_a_prompt_whose_largest_id_is_known_is_not_looked_at() -> None:
    class Unread(list[int]):
        def __iter__(self) -> Iterator[int]:
            raise AssertionError("each kind of engine would read a million ids again")

    assert fields(make_request(1, prompt_token_ids=Unread([1, 2, 3]), largest_token_id=3)) == {}


def test_prompt_and_output_over_the_model_s_length_say_both_numbers() -> None:
    found = fields(make_request(1, prompt=99, output=102))

    assert set(found) == {"spec.sampling.max_tokens"}
    assert all(number in found["spec.sampling.max_tokens"] for number in ("99", "102", "201", "200"))


def test_a_prompt_that_leaves_no_room_for_output_is_the_prompt_s_fault() -> None:
    found = fields(make_request(1, prompt_token_ids=[1] * 200, output=1))

    assert set(found) == {"spec.prompt"}
    assert "200" in found["spec.prompt"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ttft_target_s": 0.0}, "spec.ttft_target"),
        ({"ttft_target_s": NAN}, "spec.ttft_target"),
        ({"tpot_target_s": -1.0}, "spec.tpot_target"),
        ({"deadline_at": 0.0}, "spec.deadline"),
        ({"deadline_at": NAN}, "spec.deadline"),
        ({"cost_budget": -0.5}, "spec.cost_budget"),
        ({"cost_budget": INF}, "spec.cost_budget"),
    ],
)
def test_targets_must_make_sense(changes: dict[str, Any], field: str) -> None:
    assert set(fields(make_request(1, **changes))) == {field}


def test_an_unknown_adapter_is_named_with_those_there_are() -> None:
    facts = make_facts(adapters=frozenset({"b", "a"}))

    (violation,) = admission.check(make_request(1, adapter="c"), facts)

    assert violation.field == "spec.adapter"
    assert "a, b" in violation.description


@pytest.mark.parametrize("schema", ["{", '"text"', "[1]", "[" * 100_000])
def test_a_broken_json_schema_is_named(schema: str) -> None:
    assert "structured_output.json_schema" in structured("json_schema", schema)


@pytest.mark.parametrize("choices", ["[]", '["a", ""]', "[1]", "{}", "nonsense"])
def test_choices_must_be_strings(choices: str) -> None:
    assert "structured_output.choice" in structured("choice", choices)


def test_structured_output_that_is_right_passes() -> None:
    assert structured("json_schema", json.dumps({"type": "object"})) == {}
    assert structured("choice", '["yes", "no"]') == {}


def test_a_kind_the_engine_does_not_know_is_named_with_those_it_does() -> None:
    assert "choice, json_schema" in structured("grammar", "root ::= 'a'")["structured_output.grammar"]


@pytest.mark.parametrize("value", ["", "{", "[]", "{}", '{"structures": [], "triggers": []}', '{"format": 1}'])
def test_a_structural_tag_without_a_format_is_named(value: str) -> None:
    facts = make_facts(structured_output_kinds=frozenset({"structural_tag"}))
    sampling = Sampling(structured_output=StructuredOutput(kind="structural_tag", value=value))

    (violation,) = admission.check(make_request(1, sampling=sampling), facts)

    assert violation.field == "spec.sampling.structured_output.structural_tag"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cache_salt": ""}, "cache_salt"),
        ({"engine_options": {"a": "{"}}, "engine_options['a']"),
        (
            {"structured_output": StructuredOutput(kind="regex", value="a", reasoning_arguments="[]")},
            "structured_output.reasoning_arguments",
        ),
    ],
)
def test_what_the_engine_could_not_read_is_named(fields: dict[str, Any], field: str) -> None:
    facts = make_facts(structured_output_kinds=frozenset({"regex"}))

    (violation,) = admission.check(make_request(1, sampling=Sampling(**fields)), facts)

    assert violation.field == f"spec.sampling.{field}"


def test_the_engines_own_options_are_no_part_of_a_continuation_from_tokens() -> None:
    assert Sampling().resumable
    assert not Sampling(engine_options={"mine": "1"}).resumable


@pytest.mark.parametrize("kind", ["regex", "grammar"])
def test_an_empty_constraint_is_named(kind: str) -> None:
    facts = make_facts(structured_output_kinds=frozenset({kind}))
    sampling = Sampling(structured_output=StructuredOutput(kind=kind, value=" "))

    (violation,) = admission.check(make_request(1, sampling=sampling), facts)

    assert violation.description == "is empty"


def test_all_violations_are_found_at_once() -> None:
    request = make_request(
        1,
        prompt=0,
        sampling=Sampling(temperature=-1, top_p=2, max_tokens=0, stop_token_ids=(500,)),
        cost_budget=-1.0,
        adapter="none",
    )

    assert set(fields(request)) == {
        "spec.prompt",
        "spec.sampling.temperature",
        "spec.sampling.top_p",
        "spec.sampling.max_tokens",
        "spec.sampling.min_tokens",
        "spec.sampling.stop_token_ids",
        "spec.cost_budget",
        "spec.adapter",
    } - {"spec.sampling.min_tokens"}


def test_a_prompt_that_is_known_to_be_at_fault_is_not_blamed_again() -> None:
    assert admission.check(make_request(1, prompt=0), FACTS, prompt_known=False) == []


def test_options_without_effect_are_warned_of() -> None:
    request = make_request(
        1,
        sampling=Sampling(temperature=0, top_p=0.5, seed=3, include_stop_in_output=True, prompt_logprobs=1),
        session="chat",
    )

    warned = " ".join(admission.warnings(request, FACTS))

    for option in ("top_p", "seed", "include_stop_in_output", "prompt_logprobs"):
        assert option in warned
    assert admission.warnings(make_request(1), FACTS) == ()


def test_a_model_that_classifies_has_as_many_numbers_as_classes() -> None:
    facts = make_facts(embedding_dimensions=3, classifies=True)
    request = make_request(1, embedding=Embedding(dimensions=2))

    (violation,) = admission.check(request, facts)

    assert violation.field == "spec.dimensions"
    assert "it has 3 classes" in violation.description
