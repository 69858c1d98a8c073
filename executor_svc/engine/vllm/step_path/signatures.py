"""Says whether the installed vLLM has what the step path relies on.

The step path binds methods of internal classes.  They are compared with those of the releases that it was tried with:
0.26.0 and 0.32.0.  With any other signature it is not used.
"""

from __future__ import annotations

import inspect
from typing import Any

PROCESS_OUTPUTS = (
    ("engine_core_outputs", "engine_core_timestamp", "iteration_stats"),  # 0.26
    ("engine_core_outputs", "engine_core_timestamp", "iteration_stats", "weight_version"),  # 0.32
)
ADD_REQUEST = (("request", "prompt", "parent_req", "request_index", "queue"),)
PROPAGATE_ERROR = (("e",),)
ADD_MADE_REQUEST = ("request", "prompt", "parent_req", "index", "queue")  # AsyncLLM's
ABORT_REQUESTS = (("request_ids", "internal"),)

READ_ATTRIBUTES = {
    "EngineCoreOutput": ("request_id", "new_token_ids", "finish_reason", "events"),
    "EngineCoreRequest": ("request_id", "external_req_id"),
    "RequestState": ("queue", "stats"),
    "RequestStateStats": ("num_generation_tokens", "last_token_ts"),
    "IterationStats": ("num_generation_tokens",),
}
"""Attributes that the hook reads or sets, by class."""

SET_ATTRIBUTES = frozenset(
    {"prompt_token_ids", "sampling_params", "arrival_time", "lora_request", "trace_headers", "priority"}
)
"""Attributes of an EngineCoreRequest that are set where it is made from another."""


def difference(processor: Any) -> str | None:
    """Return how ``processor``, an AsyncLLM's output processor, differs from those of the known releases.

    None if it does not differ.
    """
    methods = {
        "process_outputs": PROCESS_OUTPUTS,
        "add_request": ADD_REQUEST,
        "propagate_error": PROPAGATE_ERROR,
        "abort_requests": ABORT_REQUESTS,
    }
    for name, known in methods.items():
        found = _parameters(getattr(processor, name, None))
        if found not in known:
            return f"OutputProcessor.{name} has the parameters {found}"
    if not isinstance(getattr(processor, "request_states", None), dict):
        return "OutputProcessor.request_states is no dict"
    if not getattr(processor, "log_stats", False):
        return "statistics are off"
    return _missing()


def made_requests_difference(llm: Any) -> str | None:
    """Return why ``llm``, an AsyncLLM, may not take a request that was made from another; None if it does."""
    from vllm.v1.engine import EngineCoreRequest

    found = _parameters(getattr(llm, "_add_request", None))
    if found != ADD_MADE_REQUEST:
        return f"AsyncLLM._add_request has the parameters {found}"
    missing = SET_ATTRIBUTES.difference(dir(EngineCoreRequest))
    return f"EngineCoreRequest has no {', '.join(sorted(missing))}" if missing else None


def _parameters(method: Any) -> tuple[str, ...] | None:
    return None if method is None else tuple(inspect.signature(method).parameters)


def _missing() -> str | None:
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
    from vllm.v1.engine.output_processor import RequestState
    from vllm.v1.metrics.stats import IterationStats, RequestStateStats

    for owner in (EngineCoreOutput, EngineCoreRequest, RequestState, RequestStateStats, IterationStats):
        has = _attributes(owner)
        for name in READ_ATTRIBUTES[owner.__name__]:
            if name not in has:
                return f"{owner.__name__} has no {name}"
    return None


def _attributes(owner: Any) -> set[str]:
    """Return the attributes of a class, and those that its ``__init__`` uses."""
    code = getattr(owner.__init__, "__code__", None)
    return {*dir(owner), *(() if code is None else code.co_names)}
