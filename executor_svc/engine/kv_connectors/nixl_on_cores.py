"""NIXL in an engine that is bound to CPU cores: it keeps to them, and leaves them to the engine.

vLLM's connector (0.32) does two things on the CPU that suit machines with cores to spare.  It moves the thread that
computes to the last core of each NUMA node, which may be another engine's.  And NIXL polls on a thread of its own
without a pause, beside the computing, on the same cores: measured on one core, that halves the engine.  Without that
thread the engine makes NIXL's progress itself, in each of its steps: on one machine, where blocks are read straight
out of the other engine's memory, that costs a handoff nothing that was measured.

Runs in vLLM's worker processes, before they make their connector (``worker_extension``).
"""

from __future__ import annotations

import importlib
import os
from typing import Any


def wanted() -> bool:
    """Whether this worker's engine is bound to cores and has this connector."""
    return all(os.environ.get(name) for name in ("VLLM_CPU_OMP_THREADS_BIND", "VLLM_NIXL_SIDE_CHANNEL_PORT"))


def without_threads() -> None:
    """Have agents that are made from now on start no threads."""
    os.environ.setdefault("UCX_RCACHE_MAX_UNRELEASED", "1024")  # as vLLM does before it imports NIXL
    api = importlib.import_module("nixl._api")
    config: Any = api.nixl_agent_config

    def threadless(**arguments: Any) -> Any:
        return config(**{**arguments, "enable_prog_thread": False, "num_threads": 0})

    vars(api)["nixl_agent_config"] = threadless
