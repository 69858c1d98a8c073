"""The two layouts of a vLLM engine's processes in the tests, and how the smaller one is chosen."""

from __future__ import annotations

from collections.abc import Mapping

ONE_PROCESS: Mapping[str, str] = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
}
"""Environment of an engine that is one process beside its executor's.  Without it an engine is two.

- One process, as vLLM has it on one GPU: the engine's core schedules and computes, on one thread.
- Two processes, as vLLM's CPU build has it: the core schedules, and its worker computes on threads that are bound to
  cores.  The worker imports vLLM once more, a quarter of an engine's start.  ``tests/vllm/engine``, ``pd``,
  ``pd_system`` and ``ray`` have this layout, since it is among what they test; ``prefixes`` has it since its engines
  need cores of their own: where requests go depends on how fast each is.
"""
