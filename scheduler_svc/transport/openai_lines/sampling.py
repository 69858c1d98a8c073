"""How tokens are chosen, from the members of OpenAI's and vLLM's request bodies."""

from __future__ import annotations

import json
from typing import Any

from sage.controlplane.v1 import common_pb2
from scheduler_svc.transport.openai_lines.members import NO_TEXT, Members

_NUMBERS = (
    *("temperature", "top_p", "min_p"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
)
_INTEGERS = ("seed", "min_tokens")
_FLAGS = {
    "ignore_eos": "ignore_eos",
    "skip_special_tokens": "skip_special_tokens",
    "include_stop_str_in_output": "include_stop_in_output",
}
_IDS = ("stop_token_ids", "allowed_token_ids")
_STRINGS = ("stop", "bad_words")

NO_LIMIT = -1
"""vLLM's ``top_k`` that considers all tokens; ours is 0."""


def fill(wire: common_pb2.SamplingParams, body: Members, default_max_tokens: int | None) -> None:
    """Take the members that choose tokens from ``body``, and note what is wrong with them.

    ``default_max_tokens``: where the body has none; None: what the model's length leaves.
    """
    for name in _NUMBERS:
        _set(wire, name, body.number(name), body, name)
    for name in _INTEGERS:
        _set(wire, name, body.integer(name), body, name)
    top_k = body.integer("top_k")
    _set(wire, "top_k", 0 if top_k == NO_LIMIT else top_k, body, "top_k")
    for name, field in _FLAGS.items():
        _set(wire, field, body.flag(name), body, name)
    for name in _IDS:
        _extend(wire, name, body.several(name, int, "integers"), body)
    for name in _STRINGS:
        _extend(wire, name, body.several(name, str, "strings"), body)
    for name in ("max_tokens", "max_completion_tokens"):  # the second is the newer name, and counts
        _set(wire, "max_tokens", body.integer(name), body, name)
    if default_max_tokens is not None and not wire.HasField("max_tokens"):
        wire.max_tokens = default_max_tokens
    _bias(wire, body)
    _structured(wire, body)
    _without_effect(body)


def _set(wire: common_pb2.SamplingParams, field: str, value: Any, body: Members, name: str) -> None:
    if value is None:
        return
    try:
        setattr(wire, field, value)
    except (TypeError, ValueError, OverflowError):
        body.refuse(name, f"is {str(value)[:32]}, which is out of range")


def _extend(wire: common_pb2.SamplingParams, field: str, values: list[Any], body: Members) -> None:
    try:
        getattr(wire, field).extend(values)
    except (TypeError, ValueError, OverflowError):
        body.refuse(field, "holds a value that is out of range")


def _bias(wire: common_pb2.SamplingParams, body: Members) -> None:
    for token, value in (body.members("logit_bias") or {}).items():
        try:
            wire.logit_bias[int(token)] = float(value)
        except (TypeError, ValueError, OverflowError):
            body.refuse("logit_bias", f"{token[:32]!r}: it takes token ids and numbers")
            return


def _structured(wire: common_pb2.SamplingParams, body: Members) -> None:
    """Take what constrains the output: ``response_format``, or vLLM's ``structured_outputs`` and ``guided_*``."""
    form = body.members("response_format")
    if form is not None:
        _response_format(wire, form, body)
    own = body.members("structured_outputs") or {}
    for name in ("json", "regex", "choice", "grammar"):
        found = body.take(f"guided_{name}")
        if found is not None:
            own.setdefault(name, found)
    for name, value in own.items():
        if value is not None and value is not False:
            try:
                _constrain(wire, name, value, body)
            except UnicodeEncodeError:
                body.refuse(f"structured_outputs.{name}", NO_TEXT)


def _response_format(wire: common_pb2.SamplingParams, form: dict[str, Any], body: Members) -> None:
    kind = form.get("type")
    if kind == "json_object":
        wire.structured_output.json_object = True
    elif kind == "json_schema" and isinstance(form.get("json_schema"), dict):
        wire.structured_output.json_schema = json.dumps(form["json_schema"].get("schema", {}))
    elif kind == "structural_tag":
        wire.structured_output.structural_tag = json.dumps(form)
    elif kind != "text":
        body.refuse("response_format", "is none of text, json_object, json_schema, structural_tag")


def _constrain(wire: common_pb2.SamplingParams, name: str, value: Any, body: Members) -> None:
    member, constraint = f"structured_outputs.{name}", wire.structured_output
    if name == "json":
        constraint.json_schema = value if isinstance(value, str) else json.dumps(value)
    elif name == "json_object":
        constraint.json_object = True
    elif name == "choice" and isinstance(value, list) and all(isinstance(each, str) for each in value):
        constraint.choice.choices.extend(value)
    elif name in ("regex", "grammar", "structural_tag") and isinstance(value, str):
        setattr(constraint, name, value)
    else:
        body.refuse(member, "is not supported in a batch, or is of the wrong kind")


def _without_effect(body: Members) -> None:
    """Take the members that change nothing with these values, which clients write all the same."""
    body.allow("stream", False)
    body.allow("logprobs", False)
    body.allow("top_logprobs", 0)
    body.allow("echo", False)
    body.allow("use_beam_search", False)
    body.allow("length_penalty", 1, 1.0)
    body.allow("spaces_between_special_tokens", True)
    body.allow("return_token_ids", False)
    body.drop("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "stream_options")
