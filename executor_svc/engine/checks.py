"""Checks requests against an engine's limits.  Both engines use the same checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from executor_svc.runtime.engine_port import EngineRequest, InvalidRequestError, Sampling
from sage_media.kinds import MediaInput, MediaKind, input_of, taken


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of one engine that requests are checked against."""

    vocab_size: int  # token ids are in [0, vocab_size)
    max_model_len: int  # tokens, prompt + output
    max_logprobs: int  # top logprobs per token
    adapters: frozenset[str]
    kv_connector: bool  # whether the engine can fetch KV and keep it for others
    output_history: bool = True  # whether the engine continues from delivered tokens
    request_options: frozenset[str] = frozenset()  # options of the engine that requests may set by its own names
    embedding_dimensions: int = 0  # it embeds and does not generate: most numbers of a vector; 0: it generates
    classifies: bool = False  # it embeds, with one number per class
    media: tuple[MediaInput, ...] = ()  # kinds that it takes beside text, each once


def refuse_invalid(request: EngineRequest, limits: Limits) -> None:
    """Raise InvalidRequestError for the first invalid field of ``request``."""
    prompt = request.prompt_token_ids
    if not prompt:
        raise InvalidRequestError("prompt", "the prompt is empty")
    if request.embedding is not None or limits.embedding_dimensions:
        _check_embedding(request, limits)
    elif request.prompt_tokens >= limits.max_model_len:
        raise InvalidRequestError(
            "prompt",
            f"the prompt has {request.prompt_tokens} tokens; "
            f"the model's limit of {limits.max_model_len} leaves none for output",
        )
    _check_ids("prompt", (min(prompt), max(prompt)), limits.vocab_size)
    if request.adapter is not None and request.adapter not in limits.adapters:
        known = ", ".join(sorted(limits.adapters)) or "none"
        raise InvalidRequestError("adapter", f"unknown adapter {request.adapter!r}; there are: {known}")
    if (request.prefill_only or request.kv_transfer_params is not None) and not limits.kv_connector:
        raise InvalidRequestError("kv_transfer_params", "this engine has no KV connector")
    if request.prefill_only and request.kv_transfer_params is not None:
        raise InvalidRequestError("kv_transfer_params", "a prompt's KV is fetched or kept for another engine, not both")
    _check_sampling(request.sampling, limits)
    for kind in {each.kind for each in request.media}:
        _check_media(request, kind, limits.media)
    if request.output_history:
        _check_history(request, limits)


def _check_media(request: EngineRequest, kind: MediaKind, inputs: Sequence[MediaInput]) -> None:
    count, takes, field = sum(each.kind is kind for each in request.media), input_of(inputs, kind), kind.field
    if takes is None:
        raise InvalidRequestError(field, f"there are {count}; this engine takes {taken(each.kind for each in inputs)}")
    if count > takes.most:
        raise InvalidRequestError(field, f"there are {count}; this engine takes {takes.most}")
    if request.prefill_only or request.kv_transfer_params is not None:
        raise InvalidRequestError(field, "a split request has none")
    # The tokens that were delivered may follow the prompt, and may have a placeholder among them.
    placeholders = sum(each == takes.placeholder_token_id for each in request.prompt_token_ids)
    if placeholders < count:
        raise InvalidRequestError(field, f"there are {count}, for {placeholders} placeholders in the prompt")


def _check_embedding(request: EngineRequest, limits: Limits) -> None:
    tokens, most, options = len(request.prompt_token_ids), limits.embedding_dimensions, request.embedding
    if options is None:
        raise InvalidRequestError("model", "this engine embeds; it does not generate")
    if not most:
        raise InvalidRequestError("model", "this engine generates; it does not embed")
    if tokens > limits.max_model_len:
        raise InvalidRequestError("prompt", f"has {tokens} tokens; the model takes {limits.max_model_len}")
    if options.dimensions is not None and limits.classifies:
        raise InvalidRequestError("dimensions", f"is {options.dimensions}; a model that classifies cannot shorten")
    if options.dimensions is not None and not 1 <= options.dimensions <= most:
        raise InvalidRequestError("dimensions", f"is {options.dimensions}; the model's vectors have {most}")


def _check_history(request: EngineRequest, limits: Limits) -> None:
    history = request.output_history
    if not limits.output_history:
        raise InvalidRequestError("output_history", "this engine does not continue from delivered tokens")
    _check_ids("output_history", (min(history), max(history)), limits.vocab_size)
    if len(history) >= request.sampling.max_tokens:
        raise InvalidRequestError(
            "output_history", f"its {len(history)} tokens leave none of the {request.sampling.max_tokens} allowed"
        )
    if request.prompt_tokens + len(history) >= limits.max_model_len:
        raise InvalidRequestError(
            "output_history", f"prompt and history reach the model's limit of {limits.max_model_len} tokens"
        )
    if request.prefill_only or request.kv_transfer_params is not None:
        raise InvalidRequestError("output_history", "a split request has none")


def _check_sampling(sampling: Sampling, limits: Limits) -> None:
    _check_ids("sampling.stop_token_ids", sampling.stop_token_ids, limits.vocab_size)
    _check_ids("sampling.logit_bias", sampling.logit_bias, limits.vocab_size)
    _check_ids("sampling.allowed_token_ids", sampling.allowed_token_ids, limits.vocab_size)
    _check_bad_words(sampling.bad_words)
    _check_options(sampling, limits)
    for name, top in (("logprobs", sampling.logprobs), ("prompt_logprobs", sampling.prompt_logprobs)):
        if top is not None and top > limits.max_logprobs:
            raise InvalidRequestError(
                f"sampling.{name}", f"{top} requested; this engine returns at most {limits.max_logprobs}"
            )


def _check_options(sampling: Sampling, limits: Limits) -> None:
    for name in sampling.engine_options:
        if name not in limits.request_options:
            allowed = ", ".join(sorted(limits.request_options)) or "none"
            raise InvalidRequestError(
                f"sampling.engine_options[{name!r}]", f"is not an option that this engine's operator allows: {allowed}"
            )


def _check_bad_words(words: Iterable[str]) -> None:
    """Refuse words without a token: engines spell a word without the white space before it."""
    if any(not word.strip() for word in words):
        raise InvalidRequestError("sampling.bad_words", "holds a string of white space alone")


def _check_ids(field_name: str, ids: Iterable[int], vocab_size: int) -> None:
    for token_id in ids:
        if not 0 <= token_id < vocab_size:
            raise InvalidRequestError(field_name, f"token id {token_id} is not in [0, {vocab_size})")
