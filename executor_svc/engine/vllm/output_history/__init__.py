"""Continues a request in vLLM with tokens that an earlier attempt delivered, given as output and not as prompt.

This module imports nothing of vLLM's: the executor, the engine core and the workers all read it.
"""

from __future__ import annotations

from typing import Any

EXTRA_ARG = "sage_output_history"
"""The key of ``SamplingParams.extra_args`` under which the delivered tokens travel to the engine."""

SCHEDULER = "executor_svc.engine.vllm.output_history.scheduler.scheduler_with_history"
"""What vLLM's engine argument ``scheduler_cls`` names."""


def history_of(sampling_params: Any) -> list[int]:
    """Return a copy of the delivered tokens that a request continues from; empty for most requests."""
    extra = getattr(sampling_params, "extra_args", None)
    return list(extra.get(EXTRA_ARG) or ()) if extra else []
