"""NIXL in an engine that is bound to CPU cores: it keeps to them, and leaves them to the engine.

vLLM's connector (0.26 to 0.32) does two things on the CPU that suit machines with cores to spare.  It moves the thread
that computes to the last core of each NUMA node, which may be another engine's.  And NIXL polls on a thread of its own
without a pause, beside the computing, on the same cores.  Without that thread the engine makes NIXL's progress itself,
in each of its steps.  Measured with two engines on a core each: 2,000 prompt tokens take 0.23 s without the thread and
0.49 s with it, their handoff 13 ms and 31 ms to the first token.

Between hosts without RDMA a pull may have to wait for the other engine's step: an operator who names ``num_threads``
among the connector's ``extra`` keeps the threads.

Runs in vLLM's worker processes, before they make their connector (``worker_extension``).
"""

from __future__ import annotations

import importlib
import os
from typing import Any

THREADS_VARIABLE = "SAGE_NIXL_THREADS"  # "own": NIXL keeps its threads, "none": it has none where cores are bound


def wanted() -> bool:
    """Whether this worker's engine is bound to cores, uses NIXL and was not configured to keep NIXL's threads."""
    return os.environ.get(THREADS_VARIABLE) == "none" and bool(os.environ.get("VLLM_CPU_OMP_THREADS_BIND"))


def without_threads() -> None:
    """Have NIXL agents that are made from now on start no threads."""
    os.environ.setdefault("UCX_RCACHE_MAX_UNRELEASED", "1024")  # as vLLM does before it imports NIXL
    api = importlib.import_module("nixl._api")
    config: Any = api.nixl_agent_config

    def threadless(**arguments: Any) -> Any:
        return config(**{**arguments, "enable_prog_thread": False, "num_threads": 0})

    vars(api)["nixl_agent_config"] = threadless
