"""Our sampling options in vLLM's words."""

from __future__ import annotations

import dataclasses

import pytest

from executor_svc.engine.vllm.output_history import EXTRA_ARG
from executor_svc.engine.vllm.sampling import (
    SAME_NAME,
    SEED_FOR_NO_SEED,
    field_of_error,
    invalid_request,
    reasoning_arguments,
    sampling_arguments,
    structured_arguments,
)
from executor_svc.runtime.engine_port import (
    EngineMedia,
    InvalidRequestError,
    Sampling,
    StructuredKind,
    StructuredOutput,
)
from sage_media.kinds import MediaKind

ADDED = {"detokenize", "skip_clone"}
RENAMED = {"stop_token_ids", "bad_words", "logit_bias", "allowed_token_ids", "structured_output", "engine_options"}
ELSEWHERE = {"cache_salt"}  # in the prompt


def test_no_option_is_forgotten() -> None:
    assert {field.name for field in dataclasses.fields(Sampling)} == {*SAME_NAME, *RENAMED, *ELSEWHERE}


def test_plain_options_pass_as_they_are() -> None:
    made = sampling_arguments(Sampling(temperature=0.3, top_k=7, seed=9, max_tokens=11, logprobs=2), None)
    assert (made["temperature"], made["top_k"], made["seed"], made["max_tokens"], made["logprobs"]) == (
        0.3,
        7,
        9,
        11,
        2,
    )


def test_the_seed_that_vllm_takes_for_none_becomes_another() -> None:
    assert sampling_arguments(Sampling(seed=-1), None)["seed"] == SEED_FOR_NO_SEED
    assert sampling_arguments(Sampling(seed=0), None)["seed"] == 0
    assert sampling_arguments(Sampling(), None)["seed"] is None


def test_a_history_travels_beside_handover_parameters() -> None:
    made = sampling_arguments(Sampling(), None, output_history=(5, 6))
    assert made["extra_args"] == {EXTRA_ARG: [5, 6]}
    assert "extra_args" not in sampling_arguments(Sampling(), None)


def test_text_is_left_to_the_runtime() -> None:
    assert sampling_arguments(Sampling(), None)["detokenize"] is False


def test_empty_options_are_left_out() -> None:
    assert set(sampling_arguments(Sampling(), None)) == {*SAME_NAME, *ADDED}


def test_collections_become_what_vllm_serialises() -> None:
    sampling = Sampling(stop_token_ids=(1,), bad_words=("a",), logit_bias={1: 2.0}, allowed_token_ids=(3,))
    made = sampling_arguments(sampling, None)
    assert (made["stop_token_ids"], made["bad_words"], made["allowed_token_ids"]) == ([1], ["a"], [3])
    assert made["logit_bias"] == {1: 2.0}


def test_engine_options_are_parameters_or_extra_arguments() -> None:
    made = sampling_arguments(Sampling(engine_options={"thinking_token_budget": "7", "mine": '{"a": 1}'}), None, (5,))
    assert made["thinking_token_budget"] == 7
    assert made["extra_args"] == {"mine": {"a": 1}, EXTRA_ARG: [5]}


@pytest.mark.parametrize("value", ["true", "7.0", '"7"', "null", "{"])
def test_an_engine_option_of_another_type_is_refused_by_name(value: str) -> None:
    """The engine core would end at it."""
    with pytest.raises(InvalidRequestError) as caught:
        sampling_arguments(Sampling(engine_options={"thinking_token_budget": value}), None)
    assert caught.value.field_name == "sampling.engine_options['thinking_token_budget']"


def test_reasoning_before_a_constraint_is_for_the_engine() -> None:
    constraint = StructuredOutput(
        kind=StructuredKind.REGEX, value="a", reasoning_ended=False, reasoning_arguments='{"chat_template_kwargs": {}}'
    )
    assert reasoning_arguments(constraint) == {
        "reasoning_ended": False,
        "reasoning_parser_kwargs": {"chat_template_kwargs": {}},
    }
    assert reasoning_arguments(StructuredOutput(kind=StructuredKind.REGEX, value="a")) == {}
    assert reasoning_arguments(None) == {}
    with pytest.raises(InvalidRequestError):
        reasoning_arguments(StructuredOutput(kind=StructuredKind.REGEX, value="a", reasoning_arguments="[]"))


def test_handover_parameters_travel_verbatim() -> None:
    params = {"do_remote_decode": True, "remote_host": None}
    assert sampling_arguments(Sampling(), params)["extra_args"] == {"kv_transfer_params": params}


@pytest.mark.parametrize(
    ("kind", "value", "made"),
    [
        (StructuredKind.JSON_SCHEMA, '{"type": "object"}', {"json": '{"type": "object"}'}),
        (StructuredKind.JSON_SCHEMA, "true", {"json": "true"}),
        (StructuredKind.JSON_OBJECT, "", {"json_object": True}),
        (StructuredKind.REGEX, "a+", {"regex": "a+"}),
        (StructuredKind.CHOICE, '["a", "b"]', {"choice": ["a", "b"]}),
        (StructuredKind.GRAMMAR, "root ::= 'a'", {"grammar": "root ::= 'a'"}),
        (StructuredKind.STRUCTURAL_TAG, '{"format": {}}', {"structural_tag": '{"format": {}}'}),
    ],
)
def test_each_constraint_has_its_argument(kind: StructuredKind, value: str, made: dict[str, object]) -> None:
    assert structured_arguments(StructuredOutput(kind=kind, value=value)) == made


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (StructuredKind.JSON_SCHEMA, "{"),
        (StructuredKind.JSON_SCHEMA, "[]"),
        (StructuredKind.JSON_SCHEMA, "[" * 100_000),
        (StructuredKind.CHOICE, "["),
        (StructuredKind.CHOICE, "[]"),
        (StructuredKind.CHOICE, '"a"'),
        (StructuredKind.CHOICE, '["a", 1]'),
        (StructuredKind.CHOICE, '["a", ""]'),
    ],
)
def test_what_is_plainly_broken_is_refused_before_vllm_sees_it(kind: StructuredKind, value: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        structured_arguments(StructuredOutput(kind=kind, value=value))
    assert caught.value.field_name == f"sampling.structured_output.{kind.value}"


def test_an_error_points_at_the_option_vllm_names() -> None:
    constrained = Sampling(structured_output=StructuredOutput(kind=StructuredKind.REGEX, value="a"))
    assert field_of_error("top_p", constrained) == "sampling.top_p"
    assert field_of_error(None, constrained) == "sampling.structured_output.regex"
    assert field_of_error("something_internal", constrained) == "sampling.structured_output.regex"
    assert field_of_error(None, Sampling()) == "sampling"


def test_what_vllms_processor_refuses_is_named_by_the_media() -> None:
    clip = EngineMedia(kind=MediaKind.AUDIO, data=b"x", digest="")
    assert field_of_error(None, Sampling(), [clip]) == "audio[0]"
    assert field_of_error(None, Sampling(), [clip, clip]) == "audio"
    assert field_of_error("top_p", Sampling(), [clip]) == "sampling.top_p"


def test_an_error_keeps_vllms_words_without_its_decoration() -> None:
    class Decorated(ValueError):
        parameter = "top_p"

        def __str__(self) -> str:
            return f"{self.args[0]} (parameter=top_p, value=7)"

    error = invalid_request(Decorated("top_p must be in (0, 1], got 7."), Sampling())
    assert (error.field_name, error.message) == ("sampling.top_p", "top_p must be in (0, 1], got 7.")
