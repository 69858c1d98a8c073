"""vLLM's sampling parameters as options of the SDK."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sage_gateway.sampling_fields import UnsupportedField, sampling_options

DEFAULTS: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "seed": None,
    "n": 1,
    "max_tokens": 16,
    "min_tokens": 0,
    "ignore_eos": False,
    "skip_special_tokens": True,
    "include_stop_str_in_output": False,
    "logprobs": None,
    "prompt_logprobs": None,
    "stop": [],
    "stop_token_ids": [],
    "allowed_token_ids": None,
    "bad_words": [],
    "logit_bias": None,
    "structured_outputs": None,
}
PLAIN = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "max_tokens": 16,
    "min_tokens": 0,
    "ignore_eos": False,
    "skip_special_tokens": True,
    "include_stop_in_output": False,
}


def params(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**DEFAULTS, **fields})


def structured(**fields: Any) -> SimpleNamespace:
    none = dict.fromkeys(("json", "regex", "choice", "grammar", "structural_tag", "json_object"))
    return SimpleNamespace(**{**none, **fields})


def test_values_are_sent_as_vllms_server_resolved_them() -> None:
    assert sampling_options(params()) == PLAIN


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"top_k": -1}, {"top_k": 0}),
        ({"stop": ["x"], "include_stop_str_in_output": True}, {"stop": ["x"], "include_stop_in_output": True}),
        ({"stop_token_ids": [5]}, {"stop_token_ids": [5]}),
        ({"logit_bias": {3: -100.0}}, {"logit_bias": {3: -100.0}}),
        ({"bad_words": ["x"]}, {"bad_words": ["x"]}),
        ({"allowed_token_ids": [1, 2]}, {"allowed_token_ids": [1, 2]}),
        ({"logprobs": 0}, {"logprobs": 0}),
        ({"structured_outputs": structured(json={"type": "object"})}, {"json_schema": {"type": "object"}}),
        ({"structured_outputs": structured(json_object=True)}, {"json_object": True}),
        ({"structured_outputs": structured(choice=["a"])}, {"choice": ["a"]}),
        ({"structured_outputs": structured(regex="a+")}, {"regex": "a+"}),
        ({"structured_outputs": structured(grammar="root ::= x")}, {"grammar": "root ::= x"}),
        ({"structured_outputs": structured(structural_tag="{}")}, {"structural_tag": "{}"}),
        ({"extra_args": {}}, {}),
        ({"extra_args": {"a": [1]}}, {"engine_options": {"a": [1]}}),
        ({"thinking_token_budget": 0}, {"engine_options": {"thinking_token_budget": 0}}),
        ({"skip_reading_prefix_cache": False}, {}),
        ({"skip_reading_prefix_cache": True}, {"engine_options": {"skip_reading_prefix_cache": True}}),
        ({"skip_reading_prefix_cache": True, "prompt_logprobs": 1}, {"prompt_logprobs": 1}),
    ],
)
def test_fields_that_need_more(fields: dict[str, Any], options: dict[str, Any]) -> None:
    assert sampling_options(params(**fields)) == PLAIN | options


def test_choices_are_one_request_whose_seed_the_scheduler_counts_on_from() -> None:
    assert "n" not in sampling_options(params())
    options = sampling_options(params(n=3, seed=7))
    assert (options["n"], options["seed"]) == (3, 7)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"extra_args": {"kv_transfer_params": {}}}, "kv_transfer_params"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"spaces_between_special_tokens": False, "skip_special_tokens": False}, "spaces_between_special_tokens"),
        ({"structured_outputs": structured(whitespace_pattern=" ")}, "structured_outputs.whitespace_pattern"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(UnsupportedField) as caught:
        sampling_options(params(**fields))
    assert caught.value.field == field


@pytest.mark.parametrize("name", ["detokenize", "watermarking", "spaces_between_special_tokens"])
def test_what_changes_nothing_is_taken(name: str) -> None:
    assert sampling_options(params(**{name: False})) == sampling_options(params())
