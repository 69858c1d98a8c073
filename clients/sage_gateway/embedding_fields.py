"""The fields of a request for embeddings, in OpenAI's form, as arguments of the SDK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sage_client import EmbedOptions
from sage_gateway.json_body import json_object
from sage_gateway.request_options import RequestOptions

Inputs: TypeAlias = str | list[int] | list[str] | list[list[int]]
Encoding: TypeAlias = Literal["float", "base64"]

_KNOWN = frozenset({"model", "input", "encoding_format", "dimensions", "normalize", "user", "sage"})
_OF_VLLM = frozenset(
    {
        *("messages", "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"),
        *("add_special_tokens", "truncate_prompt_tokens", "truncation_side", "padding", "use_activation"),
        *("embed_dtype", "endianness", "cache_salt", "request_id"),
    }
)
"""Fields that vLLM's server understands, which then answers."""
_ENCODINGS_OF_VLLM = ("bytes", "bytes_only")
_OPTIONS = ("priority", "deadline", "tenant", "preferred_instance", "no_instance", "request_id")
_OTHER_OPTIONS = ("ttft_target", "tpot_target", "cost_budget", "session", "resume_mode")


class EmbeddingFieldError(Exception):
    """A field cannot be used.

    Attributes:
        param: its name in the request's body.
    """

    def __init__(self, param: str, what: str) -> None:
        self.param = param
        super().__init__(f"{param}: {what}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingFields:
    """What a request for embeddings asks for."""

    inputs: Inputs
    encoding: Encoding  # of each vector in the answer
    options: EmbedOptions


def is_for_vllm(body: bytes) -> bool:
    """Return whether a body has fields that only vLLM's server understands."""
    try:
        fields = _object(body)
    except EmbeddingFieldError:
        return False
    return not _OF_VLLM.isdisjoint(fields) or fields.get("encoding_format") in _ENCODINGS_OF_VLLM


def embedding_fields(body: bytes, options: RequestOptions) -> EmbeddingFields:
    """Return what a body asks for; the scheduler checks the values.  Raises EmbeddingFieldError."""
    fields = _object(body)
    for name in fields:
        if name not in _KNOWN:
            raise EmbeddingFieldError(name, "is not supported by this server")
    encoding: Encoding = fields.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise EmbeddingFieldError("encoding_format", "is neither float nor base64")
    return EmbeddingFields(
        inputs=_inputs(fields.get("input")), encoding=encoding, options=_embed_options(fields, options)
    )


def _object(body: bytes) -> Mapping[str, Any]:
    fields = json_object(body)
    if fields is None:
        raise EmbeddingFieldError("input", "the body is not a JSON object")
    return fields


def _inputs(given: Any) -> Inputs:
    """Return the inputs: a text, the token ids of one, or a list of either."""
    if isinstance(given, str) or (isinstance(given, list) and given and (_ids(given) or all(map(_one, given)))):
        inputs: Inputs = given
        return inputs
    raise EmbeddingFieldError("input", "is no text, no list of token ids, and no list of one of them")


def _one(given: Any) -> bool:
    return isinstance(given, str) or (isinstance(given, list) and _ids(given))


def _ids(given: list[Any]) -> bool:
    return all(type(each) is int for each in given)


def options_of(options: RequestOptions) -> EmbedOptions:
    """Return the caller's own options as ``embed`` takes them.  Raises EmbeddingFieldError."""
    for name in _OTHER_OPTIONS:
        if getattr(options, name) not in (None, ""):
            raise EmbeddingFieldError(f"sage.{name}", "is not an option of embeddings")
    found = EmbedOptions()
    for name in _OPTIONS:
        if (value := getattr(options, name)) not in (None, ""):
            found[name] = value  # type: ignore[literal-required]
    return found


def _embed_options(fields: Mapping[str, Any], options: RequestOptions) -> EmbedOptions:
    found = options_of(options)
    dimensions, normalize = fields.get("dimensions"), fields.get("normalize")
    if dimensions is not None:
        if type(dimensions) is not int or dimensions < 1:
            raise EmbeddingFieldError("dimensions", "is not a whole number of at least 1")
        found["dimensions"] = dimensions
    if normalize is not None:
        if not isinstance(normalize, bool):
            raise EmbeddingFieldError("normalize", "is neither true nor false")
        found["normalize"] = normalize
    return found
