"""Gives vLLM's engine core enough threads to compile constraints in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

THREADS = 4  # one for a slow constraint, the others for quick ones; vLLM has one for every two cores


def widen(manager: Any) -> None:
    """Have ``manager``, vLLM's StructuredOutputManager, compile in at least THREADS threads.

    Does nothing if it has no thread pool: without a tokenizer, or in another version of vLLM.
    """
    pool = getattr(manager, "executor", None)
    if isinstance(pool, ThreadPoolExecutor) and pool._max_workers < THREADS:
        pool.shutdown(wait=False)
        manager.executor = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="constraints")
