"""One attempt: one try at one leg of a request on one instance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.control.attempts.handoff import Handoff
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.decision import Decision, Phase


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
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
