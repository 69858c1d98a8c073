"""vLLM's sampling parameters as options of the SDK."""

from __future__ import annotations

from typing import Any

from sage_client import SamplingOptions


class UnsupportedField(Exception):
    """A request asks for something that the control plane cannot do.

    Attributes:
        field: its name in vLLM's sampling parameters.
        what: what is wrong with it.
    """

    def __init__(self, field: str, what: str) -> None:
        self.field = field
        self.what = what
        super().__init__(f"{field} {what}")


_COPIED = {
    "temperature": "temperature",
    "top_p": "top_p",
    "min_p": "min_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "min_tokens": "min_tokens",
    "ignore_eos": "ignore_eos",
    "skip_special_tokens": "skip_special_tokens",
    "include_stop_str_in_output": "include_stop_in_output",
    "logprobs": "logprobs",
    "prompt_logprobs": "prompt_logprobs",
}
_ENGINE_OPTIONS = ("thinking_token_budget", "skip_reading_prefix_cache")
"""Parameters that go to the engine by vLLM's name, if the executor's operator allows it, as ``vllm_xargs`` do."""

_TRANSFERS = ("kv_transfer_params", "ec_transfer_params")
_LISTS = {
    "stop": "stop",
    "stop_token_ids": "stop_token_ids",
    "allowed_token_ids": "allowed_token_ids",
    "bad_words": "bad_words",
    "logit_bias": "logit_bias",
}
_KINDS = {
    "json": "json_schema",
    "regex": "regex",
    "choice": "choice",
    "grammar": "grammar",
    "structural_tag": "structural_tag",
}

_ONLY = {
    "prompt_logprob_token_ids": None,
    "logprob_token_ids": None,
    "flat_logprobs": False,
    "repetition_detection": None,
    "trace_decode_token_ids": None,
    "watermarking": False,
}
"""Fields that the control plane does not carry, with the one value that needs nothing of it."""


def sampling_options(params: Any) -> SamplingOptions:
    """Return the SDK's options for vLLM's ``SamplingParams``.

    Raises:
        UnsupportedField: the control plane cannot do what a field asks for.
    """
    for name, value in _ONLY.items():
        if getattr(params, name, value) not in (value, None, {}):
            raise UnsupportedField(name, "is not supported by this server")
    if not (params.skip_special_tokens or getattr(params, "spaces_between_special_tokens", True)):
        raise UnsupportedField("spaces_between_special_tokens", "is not supported by this server")
    if getattr(params, "allowed_token_ids", None) == []:
        raise UnsupportedField("allowed_token_ids", "is empty")
    options: dict[str, Any] = {}
    for theirs, ours in _COPIED.items():
        if (value := getattr(params, theirs)) is not None:
            options[ours] = value
    for theirs, ours in _LISTS.items():
        if value := getattr(params, theirs):
            options[ours] = value
    options["top_k"] = max(params.top_k, 0)  # vLLM takes -1 for all tokens, too
    for name in ("logprobs", "prompt_logprobs"):
        if (top := getattr(params, name)) is not None and top < 0:
            raise UnsupportedField(name, "of the whole vocabulary are not supported by this server")
    if params.n > 1:
        options["n"] = params.n
    options |= _engine_options(params) | _structured(params.structured_outputs)
    return options  # type: ignore[return-value]


def _engine_options(params: Any) -> dict[str, Any]:
    found = dict(getattr(params, "extra_args", None) or {})
    for name in _TRANSFERS:
        if name in found:
            raise UnsupportedField(name, "is not supported by this server: the control plane decides on transfers")
    for name in _ENGINE_OPTIONS:
        if (value := getattr(params, name, None)) is not None and value is not False:
            found[name] = value
    if params.prompt_logprobs is not None:
        found.pop("skip_reading_prefix_cache", None)  # vLLM itself asks for that, here and at the engine
    return {"engine_options": found} if found else {}


def _structured(wanted: Any) -> dict[str, Any]:
    if wanted is None:
        return {}
    for name in ("disable_any_whitespace", "disable_additional_properties", "whitespace_pattern"):
        if getattr(wanted, name, None):
            raise UnsupportedField(f"structured_outputs.{name}", "is not supported by this server")
    if wanted.json_object:
        return {"json_object": True}
    return {ours: value for theirs, ours in _KINDS.items() if (value := getattr(wanted, theirs)) is not None}
