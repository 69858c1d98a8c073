"""What vLLM loads into each of its worker processes for us: ``worker_extension_cls``.

Only vLLM imports this module, in a worker; importing it ties the worker to the executor.
"""

from __future__ import annotations

import os

from executor_svc.engine.vllm.kv_connectors import nixl_on_cores
from executor_svc.engine.vllm.lifeline import hang_on_executor

_CORES = os.sched_getaffinity(0)  # cores of the thread that computes, as OpenMP bound it


class WorkerExtension:
    """Methods that vLLM mixes into its worker class."""

    def compute_on_own_cores(self) -> None:
        """Undo what a KV connector did to the binding of this thread.  Called when the engine is up."""
        os.sched_setaffinity(0, _CORES)


hang_on_executor()
if nixl_on_cores.wanted():
    nixl_on_cores.without_threads()
