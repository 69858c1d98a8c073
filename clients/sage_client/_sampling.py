"""The sampling options of ``generate`` and their encoding.  A new sampling field is added to ``SamplingOptions``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from google.protobuf.descriptor import FieldDescriptor

from sage.controlplane.v1 import common_pb2
from sage_client._field_faults import FieldFaults


class SamplingOptions(TypedDict, total=False):
    """Sampling options; an absent one takes the model's configured default, else the engine's.

    ``json_schema``, ``json_object``, ``regex``, ``choice``, ``grammar`` and ``structural_tag`` constrain what may be
    generated; at most one of them may be given.  ``reasoning_ended`` and ``reasoning_arguments`` belong to them: an
    engine with a reasoning parser lets the constraint begin after the reasoning.
    """

    temperature: float  # [0, 2]; 0 is greedy
    top_p: float  # (0, 1]
    top_k: int  # 0: all tokens
    min_p: float  # [0, 1]
    presence_penalty: float  # [-2, 2]
    frequency_penalty: float  # [-2, 2]
    repetition_penalty: float  # (0, 2]
    seed: int
    n: int  # number of choices; 1 is supported
    stop: str | Sequence[str]  # strings that end generation
    stop_token_ids: Sequence[int]
    include_stop_in_output: bool
    min_tokens: int  # output tokens before a stop condition applies
    max_tokens: int  # maximum output tokens; absent: as many as the model's length allows
    logprobs: int  # top log probabilities per output token; 0: only the chosen token's
    prompt_logprobs: int
    ignore_eos: bool
    logit_bias: Mapping[int, float]  # token id to bias, [-100, 100]
    allowed_token_ids: Sequence[int]  # only these tokens may be generated
    bad_words: Sequence[str]  # strings that may not be generated
    skip_special_tokens: bool  # leave special tokens out of the text; default true
    json_schema: str | Mapping[str, Any]  # a JSON Schema, as text or as a mapping
    json_object: bool  # any JSON object
    regex: str
    choice: Sequence[str]  # one of these strings
    grammar: str  # EBNF
    structural_tag: str | Mapping[str, Any]  # parts of the output in xgrammar's form, as text or as a mapping
    reasoning_ended: bool  # whether the prompt ends after the reasoning; absent: the engine looks for its end
    reasoning_arguments: str | Mapping[str, Any]  # of the engine's reasoning parser
    cache_salt: str  # the prompt's KV is shared only with prompts of the same salt
    engine_options: Mapping[str, Any]  # the engine's own options, by its names; only those that its operator allows


_STRUCTURED = ("json_schema", "json_object", "regex", "choice", "grammar", "structural_tag")
_REASONING = ("reasoning_ended", "reasoning_arguments")
_LISTS = ("stop", "stop_token_ids", "allowed_token_ids", "bad_words")
_RANGES = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
}


def encode_sampling(options: SamplingOptions, faults: FieldFaults) -> common_pb2.SamplingParams:
    """Encode sampling options.  Values that do not fit their field are recorded in ``faults``."""
    message = common_pb2.SamplingParams()
    for name, value in options.items():
        with faults.at(f"spec.sampling.{name}"):
            _set(message, name, value)
    if len(kinds := [name for name in _STRUCTURED if name in options]) > 1:
        faults.add("spec.sampling.structured_output", f"at most one of {', '.join(kinds)} may be given")
    return message


def _set(message: common_pb2.SamplingParams, name: str, value: object) -> None:
    if name in _STRUCTURED or name in _REASONING:
        _set_structured(message.structured_output, name, value)
    elif name in _LISTS:
        getattr(message, name).extend([value] if isinstance(value, str) else value)
    elif name == "logit_bias":
        message.logit_bias.update(value)  # type: ignore[call-overload]
    elif name == "engine_options":
        message.engine_options.update({key: json.dumps(each) for key, each in value.items()})  # type: ignore[attr-defined]
    else:
        _check_range(message, name, value)
        setattr(message, name, value)


def _check_range(message: common_pb2.SamplingParams, name: str, value: object) -> None:
    """Raise ValueError, which says the range, for a whole number that its field cannot hold."""
    lowest_highest = _RANGES.get(message.DESCRIPTOR.fields_by_name[name].type)
    if lowest_highest is None or not isinstance(value, int):
        return
    lowest, highest = lowest_highest
    if not lowest <= value <= highest:
        raise ValueError(f"{value} is not in the range {lowest} to {highest}")


def _set_structured(message: common_pb2.StructuredOutput, name: str, value: object) -> None:
    if name == "choice":
        message.choice.choices.extend(_strings(value))
        message.choice.SetInParent()  # an empty list is sent, so that the server refuses it
    elif name in ("json_schema", "structural_tag", "reasoning_arguments") and not isinstance(value, str):
        setattr(message, name, json.dumps(value))
    else:
        setattr(message, name, value)


def _strings(value: object) -> Iterable[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError("must be a list of strings")
    return value
