"""Random generators of seeded requests in vLLM's V1 model runner: advanced past a history, and rewindable on a CPU.

After each step that computed only a part of a prompt, vLLM discards the token that it sampled and rewinds the request's
generator with ``set_offset(get_offset() - 4)``.  A generator on a CPU has no offset: PyTorch raises, and that ends the
engine with all its requests.  So on a CPU each request gets a generator that rewinds by drawing again.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

GPU_OFFSET_OF_A_DRAW = 4  # as vLLM itself assumes where it rewinds a generator

Draw = Callable[[Any], object]
"""Draws from a torch.Generator as one sampling step of vLLM does on a CPU."""


class SeededGenerators:
    """Makes the generators of this process's requests."""

    def __init__(self) -> None:
        self._rewindable = _rewindable_class(_cpu_draw())

    def of(self, state: Any) -> Any:
        """Return the generator for a new request state that has its history; None for an unseeded request."""
        generator, tokens = state.generator, state.output_token_ids
        if generator is None:
            return None
        if generator.device.type == "cpu":
            return self._rewindable(state.sampling_params.seed, tokens)
        if tokens:
            generator.set_offset(generator.get_offset() + GPU_OFFSET_OF_A_DRAW * len(tokens))
        return generator


def _cpu_draw() -> Draw | None:
    """Return what this vLLM draws for a token on a CPU; None if it is not known."""
    import torch
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    source = inspect.getsource(TopKTopPSampler.forward_cpu)
    if "fused_gumbel_argmax" in source and "torch.randint(" in source:
        return lambda generator: torch.randint(0, 2**31, (1,), generator=generator, dtype=torch.long)
    log.warning("this vLLM's draws on a CPU are not known: seeded requests cannot continue from delivered tokens there")
    return None


def _rewindable_class(draw: Draw | None) -> type[Any]:
    """Return the class of generators on a CPU that can be rewound to their request's last token."""
    import torch

    class RewindableGenerator(torch.Generator):
        def __new__(cls, seed: int, tokens: list[int]) -> Any:
            return super().__new__(cls)

        def __init__(self, seed: int, tokens: list[int]) -> None:
            self._seed = seed
            self._tokens = tokens  # the request's output, which grows
            self._rewind()

        def _rewind(self) -> None:
            """Go to the state before the request's next token is drawn."""
            self.manual_seed(self._seed)
            if draw is not None:
                for _ in self._tokens:
                    draw(self)

        def get_offset(self) -> int:
            """Return 0: vLLM only passes the difference on to ``set_offset``."""
            return 0

        def set_offset(self, offset: int) -> None:
            """Rewind: vLLM calls this only to take the last draw back."""
            self._rewind()

    return RewindableGenerator
