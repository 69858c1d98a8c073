"""The workers' half, for vLLM's V1 model runner: a request's state begins with its history and its generator after it.

The V2 model runner needs none of it: it takes all tokens from the scheduler, and its seeded noise is a function of seed
and position.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from executor_svc.engine.vllm.output_history import history_of
from executor_svc.engine.vllm.output_history.seeded_generator import SeededGenerators

log = logging.getLogger(__name__)

NEEDED_FIELDS = frozenset({"sampling_params", "generator", "output_token_ids"})


def install() -> None:
    """Have this process's request states begin with their history, and be safe to rewind on a CPU.  Idempotent.

    Where this vLLM differs from what is known here, nothing is changed and a warning says so.
    """
    try:
        from vllm.v1.worker.gpu_input_batch import CachedRequestState
    except ImportError as error:
        _warn(str(error))
        return
    state: Any = CachedRequestState
    missing = NEEDED_FIELDS - {field.name for field in dataclasses.fields(state)}
    if "__post_init__" not in vars(state):
        missing |= {"__post_init__"}
    if missing:
        _warn(f"vLLM's CachedRequestState has no {', '.join(sorted(missing))}")
    elif not hasattr(state, "with_history"):
        _install_in(state)


def _warn(difference: str) -> None:
    log.warning("no request continues from its output history, and seeded ones may end a CPU engine: %s", difference)


def _install_in(state: Any) -> None:
    generators = SeededGenerators()
    made = state.__post_init__

    def __post_init__(self: Any) -> None:
        made(self)
        if not self.output_token_ids:
            self.output_token_ids = history_of(self.sampling_params)
        self.generator = generators.of(self)

    state.__post_init__ = __post_init__
    state.with_history = True
