"""The state of a split request between its two legs."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.pd.pairs import Pair


@dataclass(slots=True, kw_only=True, eq=False)
class Handoff:
    """A split request on its way from its prefill leg to the first token of its decode leg.

    Times are seconds on the control clock.
    """

    prefill_instance: str
    prefill_number: int  # the prefill leg's attempt
    decode_instance: str
    pair: Pair | None  # of the two engines that ran when the request was split
    # Known once prefill is over:
    params: bytes = b""  # JSON of the engines' connector; opaque here
    prefill_ended_at: float = 0.0
    fetch_before: float = 0.0  # after this the blocks may hold another prompt's KV
    lease_ends_at: float = 0.0  # after this the blocks are free for certain
