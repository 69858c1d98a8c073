"""One attempt: one try at one leg of a request on one instance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scheduler_svc.control.links import ExecutorLink
from scheduler_svc.control.live_request import LiveRequest
from scheduler_svc.domain.decision import Decision, Phase
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


@dataclass(slots=True, kw_only=True, eq=False)
class Assignment:
    """Lives until its executor confirms the end, or its instance is lost: as long as its room may be taken."""

    live: LiveRequest
    decision: Decision
    link: ExecutorLink
    number: int  # the attempt's
    instance_id: str
    phase: Phase
    assigned_at: float
    handoff: Handoff | None = None  # of a split request, until its decode leg's first token
    accepted: bool = False
    first_token_at: float | None = None
    fenced: bool = False  # what it still sends is dropped
    cancel_sent: bool = False
    on_dismissed: Callable[[], None] | None = None  # gives back what is kept for its request elsewhere

    def abandon(self, reason: str) -> None:
        """Fence it and have the engine stop.  Its room is free once the executor says so.  Idempotent."""
        self.fenced = True
        if self.live.current is self:
            self.live.current = None
        if not self.cancel_sent:
            self.cancel_sent = True
            self.link.cancel(self.number, reason)

    def dismiss(self, reason: str) -> None:
        """Its request is over: nobody wants it any more, nor what was to follow it."""
        self.abandon(reason)
        if self.on_dismissed is not None:
            self.on_dismissed()
