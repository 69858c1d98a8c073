"""The first leg of a split request: computes the prompt and leaves its KV behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from scheduler_svc.control.attempts.attempt_listener import Loss
from scheduler_svc.control.attempts.handoff import Handoff
from scheduler_svc.control.attempts.leg_attempt import LegAttempt
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.domain.attempt_end import AttemptEnd
from scheduler_svc.domain.decision import Decision, Phase


class PrefillOwner(Protocol):
    """Decides what follows a prefill leg."""

    def prefill_ended(self, leg: PrefillLeg, end: AttemptEnd, *, counted: bool) -> None:
        """Go on after the leg's sequence is over; the KV blocks it left still take capacity."""
        ...

    def prefill_lost(self, leg: PrefillLeg, loss: Loss) -> None:
        """Go on after a leg that is lost, so that its end will not be reported."""
        ...

    def give_up_decode(self, decision: Decision) -> None:
        """Free the capacity reserved for a decode leg that was not sent yet."""
        ...


class PrefillLeg(LegAttempt):
    """Implements AttemptListener for a prefill leg."""

    def __init__(
        self, owner: PrefillOwner, runner: RequestRunner, live: LiveRequest, decision: Decision, handoff: Handoff
    ) -> None:
        super().__init__(runner, live, decision)
        self._owner = owner
        self.handoff = handoff

    def send(self) -> bool:
        """Send the leg to its executor; False if the executor has no session."""
        return self._send(self, Phase.PREFILLING)

    def stop(self, reason: str) -> None:
        """Fence the leg, have its engine stop, and free what is reserved for the decode leg."""
        super().stop(reason)
        self._owner.give_up_decode(self.decision)

    # --- AttemptListener --------------------------------------------------------------------------

    def token(self, first_index: int, token_id: int, text: str, now: float) -> None:
        """Drop the leg's token: it is no part of the output."""

    def tokens(
        self,
        first_index: int,
        token_ids: Sequence[int],
        text: str,
        logprobs: Sequence[bytes] | None,
        kv_recomputed: bool,
    ) -> None:
        """Drop the leg's token: it is no part of the output."""

    def rejected(self, reason: str, message: str, *, counted: bool) -> None:
        """Have the decode instance compute the prompt."""
        instance_id = self.handoff.prefill_instance
        if counted:
            self._runner.note_rejection(instance_id, reason)
        self.lost(
            Loss(
                why=f"{instance_id} rejected it: {reason} {message}".rstrip(),
                cause=FailoverCause.REJECTED,
                counted=counted,
                capacity_is_free=True,
                blames_instance=True,
            )
        )

    def ended(self, end: AttemptEnd, *, counted: bool) -> None:
        """Pass the end on to the owner, which sends the decode leg or falls back."""
        self._reported(end)
        self._runner.capacity_changed()
        self._runner.current.over(self.live, self)
        self._owner.prefill_ended(self, end, counted=counted)

    def lost(self, loss: Loss) -> None:
        """Pass the loss on to the owner."""
        self._charge_lost()
        if loss.capacity_is_free:
            self._runner.capacity_changed()
        self._runner.current.over(self.live, self)
        self._owner.prefill_lost(self, loss)
