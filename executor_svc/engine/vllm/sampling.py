"""Translates sampling options to keyword arguments of vLLM's classes, without importing vLLM.

A new sampling field gets a line in ``SAME_NAME`` or in ``sampling_arguments``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from executor_svc.engine.structured import choices_of, field_of, reasoning_arguments_of, schema_of, structural_tag_of
from executor_svc.engine.vllm.output_history import EXTRA_ARG
from executor_svc.engine.vllm.request_options import option_arguments
from executor_svc.runtime.engine_port import (
    EngineMedia,
    InvalidRequestError,
    JsonValue,
    Sampling,
    StructuredKind,
    StructuredOutput,
)

SAME_NAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "min_tokens",
    "max_tokens",
    "logprobs",
    "prompt_logprobs",
    "ignore_eos",
)
"""Fields that vLLM calls by the same name, with the same meaning."""

NO_SEED = -1  # vLLM takes this seed for none, and would sample at random
SEED_FOR_NO_SEED = 2**63 - 1


def sampling_arguments(
    sampling: Sampling, kv_transfer_params: Mapping[str, JsonValue] | None, output_history: Sequence[int] = ()
) -> dict[str, Any]:
    """Return keyword arguments for ``SamplingParams``.

    The caller adds output_kind and structured_outputs, which need vLLM's classes.  vLLM does not detokenize, because
    the runtime makes the text.  Empty options are left out: some have another meaning for vLLM when they are empty
    (allowed_token_ids), or switch on a slower path.  Raises InvalidRequestError for an engine option of a wrong type.
    """
    arguments: dict[str, Any] = {name: getattr(sampling, name) for name in SAME_NAME}
    arguments["seed"] = seed_for(sampling)
    arguments["detokenize"] = False
    arguments["skip_clone"] = True  # the object is made for one request and never changed
    if sampling.stop_token_ids:
        arguments["stop_token_ids"] = list(sampling.stop_token_ids)
    if sampling.bad_words:
        arguments["bad_words"] = list(sampling.bad_words)
    if sampling.logit_bias:
        arguments["logit_bias"] = dict(sampling.logit_bias)
    if sampling.allowed_token_ids:
        arguments["allowed_token_ids"] = list(sampling.allowed_token_ids)
    options, extra = option_arguments(sampling.engine_options)
    arguments |= options
    if kv_transfer_params is not None:
        extra["kv_transfer_params"] = dict(kv_transfer_params)
    if output_history:
        extra[EXTRA_ARG] = list(output_history)
    if extra:
        arguments["extra_args"] = extra
    return arguments


def seed_for(sampling: Sampling) -> int | None:
    """Return the seed that vLLM is given."""
    return SEED_FOR_NO_SEED if sampling.seed == NO_SEED else sampling.seed


def structured_arguments(constraint: StructuredOutput) -> dict[str, Any]:
    """Return keyword arguments for ``StructuredOutputsParams``.  Raises InvalidRequestError for a broken constraint."""
    match constraint.kind:
        case StructuredKind.JSON_SCHEMA:
            schema_of(constraint)
            return {"json": constraint.value}
        case StructuredKind.JSON_OBJECT:
            return {"json_object": True}
        case StructuredKind.REGEX:
            return {"regex": constraint.value}
        case StructuredKind.CHOICE:
            return {"choice": choices_of(constraint)}
        case StructuredKind.GRAMMAR:
            return {"grammar": constraint.value}
        case StructuredKind.STRUCTURAL_TAG:
            return {"structural_tag": structural_tag_of(constraint)}


def reasoning_arguments(constraint: StructuredOutput | None) -> dict[str, Any]:
    """Return what ``AsyncLLM.generate`` takes about the reasoning before a constraint.  Raises InvalidRequestError."""
    arguments: dict[str, Any] = {}
    if constraint is None:
        return arguments
    if constraint.reasoning_ended is not None:
        arguments["reasoning_ended"] = constraint.reasoning_ended
    if constraint.reasoning_arguments:
        arguments["reasoning_parser_kwargs"] = reasoning_arguments_of(constraint)
    return arguments


def field_of_error(parameter: str | None, sampling: Sampling, media: Sequence[EngineMedia] = ()) -> str:
    """Return the contract path of the field that vLLM refused.

    ``parameter``: vLLM's name for it, if vLLM gave one.  ``media``: of the request, which vLLM's processor may refuse.
    """
    if parameter is not None and hasattr(sampling, parameter):
        return f"sampling.{parameter}"
    if sampling.structured_output is not None:
        return field_of(sampling.structured_output.kind)
    if media:
        field = media[0].kind.field
        return f"{field}[0]" if len(media) == 1 else field
    return "sampling"


def invalid_request(error: BaseException, sampling: Sampling, media: Sequence[EngineMedia] = ()) -> InvalidRequestError:
    """Return the port's error for ``error``, which vLLM raised about the caller's options."""
    parameter = getattr(error, "parameter", None)
    message = str(error.args[0]) if error.args else type(error).__name__
    return InvalidRequestError(field_of_error(parameter, sampling, media), message)
