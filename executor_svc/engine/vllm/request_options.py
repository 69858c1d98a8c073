"""Options of a request that have no field in the contract: by vLLM's own names, as far as the operator allows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from executor_svc.engine.vllm.output_history import EXTRA_ARG
from executor_svc.runtime.engine_port import InvalidRequestError

PARAMETERS: dict[str, type] = {"thinking_token_budget": int, "skip_reading_prefix_cache": bool}
"""Options that are parameters of ``SamplingParams``, and their types; any other goes into its ``extra_args``.

The types are checked here: a wrong one would end the engine core, which decodes what it is sent by its types.
"""

RESERVED = frozenset({EXTRA_ARG, "kv_transfer_params", "ec_transfer_params"})
"""Names in ``extra_args`` by which the executor itself talks to the engine."""


def option_arguments(options: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what allowed options add to the arguments of ``SamplingParams``, and to its ``extra_args``.

    ``options``: JSON values by vLLM's names.  Raises InvalidRequestError for a value that cannot be used.
    """
    arguments: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, text in options.items():
        value = _value(name, text)
        if (wanted := PARAMETERS.get(name)) is None:
            extra[name] = value
        elif type(value) is wanted:
            arguments[name] = value
        else:
            raise InvalidRequestError(_field(name), f"is no {wanted.__name__}")
    return arguments, extra


def _value(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(_field(name), f"is not JSON: {error}") from None


def _field(name: str) -> str:
    return f"sampling.engine_options[{name!r}]"
