"""What the engine tells of a request's prompt with the first token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LOGPROB_BYTES = 33  # memory of an encoded message beside its content


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptFacts:
    """Facts of the attempt that made the first token."""

    cached_tokens: int  # served from the prefix cache
    logprobs: Sequence[bytes] = ()  # an encoded message per prompt token, the first one empty; none if not wanted

    @property
    def size_bytes(self) -> int:
        """The memory that they take, about."""
        return sum(LOGPROB_BYTES + len(each) for each in self.logprobs)
