"""The extension that vLLM loads into each of its worker processes (``worker_extension_cls``).

Only vLLM imports this module, in a worker.  The import makes the worker end when the executor ends, and at once when
it ends by itself, and has requests continue with their output history and seeded ones survive on a CPU.
"""

from __future__ import annotations

import os

from executor_svc.engine.vllm.kv_connectors import nixl_on_cores
from executor_svc.engine.vllm.lifeline import watch_executor
from executor_svc.engine.vllm.output_history import request_states
from sage_common.garbage import start_and_end_fast

_CORES = os.sched_getaffinity(0)  # cores that OpenMP bound the computing thread to


class WorkerExtension:
    """Methods that vLLM mixes into its worker class."""

    def compute_on_own_cores(self) -> None:
        """Bind this thread to its cores again, which a KV connector may have changed.  Called when the engine is up."""
        os.sched_setaffinity(0, _CORES)


start_and_end_fast()
watch_executor()
request_states.install()
if nixl_on_cores.wanted():
    nixl_on_cores.without_threads()
