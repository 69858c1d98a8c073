"""Switches NIXL's threads off in an engine that is bound to CPU cores, so that they take no time from the engine.

NIXL polls without a pause in a thread of its own, on the same cores that compute.  Without that thread the engine makes
NIXL's progress in each of its steps.  Measured with two engines on one core each: 2,000 prompt tokens take 0.23 s
without the thread and 0.49 s with it; their handoff takes 13 ms and 31 ms to the first token.  (vLLM's connector, 0.26
to 0.32, also moves the computing thread to the last core of each NUMA node, which may be another engine's;
``worker_extension`` moves it back.)

Between hosts without RDMA a pull without these threads may have to wait for the other engine's step.  An operator keeps
the threads by setting ``num_threads`` in the connector's ``extra``.

``worker_extension`` calls this module in vLLM's worker processes, before they make their connector.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

THREADS_VARIABLE = "SAGE_NIXL_THREADS"  # "own": NIXL keeps its threads; "none": no threads if cores are bound


def wanted() -> bool:
    """Whether this worker's engine is bound to cores, uses NIXL and was not configured to keep NIXL's threads."""
    return os.environ.get(THREADS_VARIABLE) == "none" and bool(os.environ.get("VLLM_CPU_OMP_THREADS_BIND"))


def without_threads() -> None:
    """Make every NIXL agent that is created from now on start no threads."""
    os.environ.setdefault("UCX_RCACHE_MAX_UNRELEASED", "1024")  # as vLLM does before it imports NIXL
    api = importlib.import_module("nixl._api")
    config: Any = api.nixl_agent_config

    def threadless(**arguments: Any) -> Any:
        return config(**{**arguments, "enable_prog_thread": False, "num_threads": 0})

    vars(api)["nixl_agent_config"] = threadless
