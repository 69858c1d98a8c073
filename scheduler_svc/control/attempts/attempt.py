"""One attempt: one try at one leg of a request, or of a warm-up, on one instance."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.control.attempts.attempt_listener import AttemptListener
from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.domain.decision import Phase


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
    """An entry of the attempt table.

    It stays there until its executor confirms the end or its instance is lost, because its capacity is taken until
    then.
    """

    number: int
    instance_id: str
    phase: Phase
    link: ExecutorLink  # to the instance's current session
    listener: AttemptListener
    sent_at: float  # seconds on the control clock
    accepted: bool = False  # its executor has it
    fenced: bool = False  # its output no longer counts: what it still sends is dropped
    cancel_sent: bool = False

    def let_go(self) -> AttemptListener:
        """Return the listener for its last call, and forget it.

        The listener knows the attempt: both, and the request with its output, would stay until garbage is collected.
        """
        listener = self.listener
        del self.listener
        return listener

    def abandon(self, reason: str) -> None:
        """Fence the attempt and ask its engine to stop.

        Its capacity is free once the executor confirms.  A second call does nothing.
        """
        self.fenced = True
        if not self.cancel_sent:
            self.cancel_sent = True
            self.link.cancel(self.number, reason)
