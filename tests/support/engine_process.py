"""How vLLM's CPU build is made to run an engine on one core in one process."""

from __future__ import annotations

from collections.abc import Mapping

ONE_PROCESS: Mapping[str, str] = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
}
"""Environment of an engine whose core computes in its own process, as vLLM has it on one GPU.

The CPU build gives what computes another process, in order to bind its threads to cores.  That process imports vLLM
once more, a quarter of an engine's start.  ``tests/vllm/engine``, ``pd``, ``pd_system`` and ``ray`` run engines that
way, and ``prefixes``, whose engines need their cores for themselves: where requests go depends on how fast each is.
"""
