"""What an engine is given while its speed is measured, and how its iterations are told.

Executors measure their engines so, and modelled executors their models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Generic, Protocol, TypeVar

ROUNDS = 3  # that are measured
ALONE_TOKENS = 16  # of the outputs behind prompts that fill an iteration: twice what an overlapping engine tells as one
TOGETHER = 32  # sequences that decode together, at most
SHORT_PROMPT_TOKENS = 16
TOGETHER_TOKENS = 16  # of each of their outputs
MOST_KINDS = 64  # of iterations that are told


class EngineLimits(Protocol):
    """What the loads have to fit."""

    @property
    def max_model_len(self) -> int:
        """Tokens of one request, prompt and output."""
        ...

    @property
    def kv_capacity_tokens(self) -> int:
        """Tokens of the KV cache."""
        ...

    @property
    def max_batched_tokens(self) -> int:
        """Tokens of one iteration."""
        ...

    @property
    def max_running(self) -> int:
        """Sequences at once."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that an engine is given at the same time."""

    prompts: tuple[int, ...]  # tokens of each
    output_tokens: int  # of each; an engine that embeds makes none


def loads(limits: EngineLimits, *, embeds: bool = False) -> Sequence[Load]:
    """Return what one round gives to an engine: prompts that fill an iteration, then many short requests.

    With their outputs they fit the model's length, and those of a load together half of the KV cache.  An engine that
    ``embeds`` gets a short prompt alone as well.
    """
    room = limits.kv_capacity_tokens // 2
    request = max(2, min(limits.max_model_len, room))
    alone = min(ALONE_TOKENS, request // 2)
    longest = request - alone
    whole, rest = divmod(max(1, min(limits.max_batched_tokens, room)), longest)
    pieces = (*(longest,) * whole, *((rest,) if rest else ()))[: max(1, min(limits.max_running, room // request))]
    outputs = min(TOGETHER_TOKENS, request // 2)
    short = min(SHORT_PROMPT_TOKENS, request - outputs)
    many = max(1, min(TOGETHER, limits.max_running, room // (short + outputs)))
    both = [Load(pieces, alone), Load((short,) * many, outputs)]
    return [*both, Load((short,), 1)] if embeds else both


class MeasuredIteration(Protocol):
    """What an engine tells of one iteration."""

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens that it computed."""
        ...

    @property
    def decode_tokens(self) -> int:
        """Output tokens that it computed."""
        ...

    @property
    def running(self) -> int:
        """Sequences that it computed for."""
        ...

    @property
    def kv_used_tokens(self) -> int:
        """Tokens in the KV cache."""
        ...

    @property
    def elapsed_s(self) -> float:
        """Seconds that it took."""
        ...


IterationT = TypeVar("IterationT", bound=MeasuredIteration)


@dataclass(frozen=True, slots=True)
class Kind(Generic[IterationT]):
    """Iterations that computed the same amount."""

    iterations: Sequence[IterationT]  # one at least, in their order
    kv_used_tokens: int  # their mean
    elapsed_s: float  # their median, which leaves out those that something else on the machine made slow


def by_kind(iterations: Iterable[IterationT]) -> Sequence[Kind[IterationT]]:
    """Put iterations that computed the same amount together; the most frequent kind first, MOST_KINDS at most."""
    kinds: dict[tuple[int, int, int], list[IterationT]] = {}
    for each in iterations:
        kinds.setdefault((each.prefill_tokens, each.decode_tokens, each.running), []).append(each)
    return [
        Kind(
            iterations=found,
            kv_used_tokens=round(sum(each.kv_used_tokens for each in found) / len(found)),
            elapsed_s=median(each.elapsed_s for each in found),
        )
        for found in sorted(kinds.values(), key=len, reverse=True)[:MOST_KINDS]
    ]
