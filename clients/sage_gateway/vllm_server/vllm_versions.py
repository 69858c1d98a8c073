"""What lies elsewhere in one version of vLLM than in another, or is missing there, under one name each."""

from __future__ import annotations

from typing import Any

from sage_gateway.vllm_version import OLDEST, check_vllm, is_of

if is_of(check_vllm(), OLDEST):
    from vllm.entrypoints.openai.api_server import build_app, init_app_state, validate_api_server_args
    from vllm.entrypoints.openai.cli_args import make_arg_parser
    from vllm.entrypoints.openai.engine.protocol import GenerationError, UsageInfo
else:
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.launchers.launcher import validate_api_server_args
    from vllm.entrypoints.serve.engine.protocol import UsageInfo
    from vllm.exceptions import GenerationError

__all__ = [
    "USAGE_HAS_COMPLETION_DETAILS",
    "GenerationError",
    "build_app",
    "init_app_state",
    "keep_alive_interval",
    "make_arg_parser",
    "structured_outputs_config",
    "validate_api_server_args",
]

USAGE_HAS_COMPLETION_DETAILS = "completion_tokens_details" in UsageInfo.model_fields
"""Whether the usage of a chat has a field for what its output tokens were."""


def structured_outputs_config(engine_arguments: Any) -> Any:
    """Return the configuration of structured outputs, which knows the parser of reasoning that was asked for."""
    if hasattr(engine_arguments, "create_structured_outputs_config"):
        return engine_arguments.create_structured_outputs_config()
    config = engine_arguments.structured_outputs_config  # vLLM 0.26: as its create_engine_config does
    for name in ("reasoning_parser", "reasoning_parser_plugin"):
        if value := getattr(engine_arguments, name):
            setattr(config, name, value)
    return config


def keep_alive_interval(arguments: Any) -> float | None:
    """Return the seconds after which vLLM's server writes a comment into a stream; None or 0: it writes none.

    ``arguments``: of vLLM's server, as its command line was read.
    """
    interval: float | None = getattr(arguments, "sse_keep_alive_interval", None)  # vLLM 0.26 has no such flag
    return interval
