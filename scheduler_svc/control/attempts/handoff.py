"""What there is of a split request between its two legs."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.pd.pairs import Pair


@dataclass(slots=True, kw_only=True, eq=False)
class Handoff:
    """A split request on its way from its prefill leg to the first token of its decode leg."""

    prefill_instance: str
    prefill_number: int
    decode_instance: str
    pair: Pair | None  # of the two engines that there were when the request was split
    # Once prefill is over:
    params: bytes = b""
    prefill_ended_at: float = 0.0
    fetch_before: float = 0.0  # from then on the blocks may be another prompt's
    lease_ends_at: float = 0.0  # by then they are free
