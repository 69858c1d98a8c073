"""What one request needs of an instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.cached_tokens import cached_column
from scheduler_svc.domain.capacity.figures import Column
from scheduler_svc.domain.capacity.offered_load import NO_LOAD, OfferedLoad
from scheduler_svc.domain.engine_facts import ModelIdentity
from scheduler_svc.domain.request import Request


@dataclass(slots=True, kw_only=True)
class Demand:
    """What a request needs of an instance to run there; made again for every try to place it."""

    request: Request
    prompt_tokens: int  # to prefill: tokens that earlier attempts emitted are included
    output_tokens: int  # predicted
    tokens: int  # KV tokens: prompt and predicted output; instances round them up to their blocks
    total_tokens: int  # prompt and all that max_tokens allows
    started: bool  # its first token was delivered by an earlier attempt
    must_leave_reserve: bool  # it may not take the last free slot, which is reserved for CRITICAL requests
    overtakes: bool = False  # a CRITICAL request that is placed for its first token, before prompts of other classes
    able: Sequence[Account] = ()  # instances that can serve it once they have capacity; () where nobody looked
    decode_leg: bool = False  # its prompt is computed on another instance
    load: OfferedLoad = NO_LOAD  # of its model
    behind: int = 0  # requests of its model that wait and go after it
    others_wait: int = 0  # requests of its model that wait beside it
    waits_since: float | None = None  # when it first waited for a faster instance; None: it never did
    excluded: frozenset[str] = frozenset()  # instances to avoid if another one can serve it
    #: By instance id: prompt tokens that its prefix cache is believed to hold; only instances with more than 0.
    cached_tokens: Mapping[str, int] = field(default_factory=dict)
    cache_known: bool = False  # whether ``cached_tokens`` is all that caches hold; else a learned share is assumed
    identity: ModelIdentity | None = None  # of the model that began its output; None before its first token

    def cached_in(self, accounts: Sequence[Account]) -> Column:
        """Return the prompt tokens that each of the accounts' prefix caches is believed to hold."""
        return cached_column(self.cached_tokens, accounts)

    def cached_on(self, instance_id: str) -> int | None:
        """Return the prompt tokens that an instance's prefix cache is believed to hold; None if that is not known."""
        return self.cached_tokens.get(instance_id, 0) if self.cache_known else None

    def crediting(self, cached_tokens: Mapping[str, int]) -> Demand:
        """Return the same demand with other cached tokens."""
        return replace(self, cached_tokens=cached_tokens)

    @property
    def constrained(self) -> bool:
        """Whether some instances of the model may be unable to serve it, whatever their free capacity."""
        request = self.request
        return bool(
            self.excluded
            or self.identity is not None
            or request.adapter
            or request.sampling.structured_output is not None
        )
