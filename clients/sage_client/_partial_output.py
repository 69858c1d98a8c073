"""What was delivered of a request that did not finish."""

from __future__ import annotations

from dataclasses import dataclass

from sage_client._events import Decision, TokenLogprob
from sage_client._plain import Plain


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialOutput(Plain):
    """What was delivered of a request that did not finish (choice 0)."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[tuple[TokenLogprob, ...], ...]  # one per token if requested
    decisions: tuple[Decision, ...]  # placements, oldest first
