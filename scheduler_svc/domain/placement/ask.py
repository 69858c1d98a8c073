"""What a request needs of an instance."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.request import Request


@dataclass(slots=True, kw_only=True)
class Ask:
    """Made anew for every attempt to place a request."""

    request: Request
    prompt_tokens: int  # to prefill: emitted ones of earlier attempts included
    output_tokens: int  # predicted
    tokens: int  # KV room: prompt and predicted output; instances round it up to their blocks
    total_tokens: int  # prompt and all that max_tokens allows
    started: bool  # its first token was delivered by an earlier attempt
    headroom: bool  # it must leave one slot for CRITICAL
    excluded: frozenset[str] = frozenset()  # instances to avoid where others are

    @property
    def constrained(self) -> bool:
        """Whether not every instance of the model may do."""
        request = self.request
        return bool(self.excluded or request.adapter or request.sampling.structured_output is not None)
