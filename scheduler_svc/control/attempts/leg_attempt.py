"""What the attempts at all legs of a request have in common: sending, stopping, position and cost."""

from __future__ import annotations

from scheduler_svc.control.attempts.attempt import Attempt
from scheduler_svc.control.attempts.attempt_listener import AttemptListener, Loss
from scheduler_svc.control.attempts.executor_link import KvHandoff
from scheduler_svc.control.attempts.quarantine import EngineDeath
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.control.requests.prompt_facts import PromptFacts
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.decision import Decision, Phase


class LegAttempt:
    """One leg of a request on one instance.  ``RequestAttempt`` and ``PrefillLeg`` add what the leg's events mean."""

    def __init__(self, runner: RequestRunner, live: LiveRequest, decision: Decision) -> None:
        self._runner = runner
        self.live = live
        self.decision = decision
        self._attempt: Attempt | None = None
        self._charged = False
        self._begins_at = len(live.output)

    @property
    def sent_at(self) -> float:
        """When the leg was sent, in seconds on the control clock."""
        assert self._attempt is not None, "only a leg that was sent has a time"
        return self._attempt.sent_at

    @property
    def position(self) -> int:
        """Count the output tokens that arrived, over all attempts."""
        return len(self.live.output)

    @property
    def published(self) -> int:
        """Count the output tokens that readers may have: of detached work, those that are written down."""
        return len(self.live.published)

    @property
    def fresh_tokens(self) -> int:
        """Count the output tokens that arrived since the leg was made."""
        return len(self.live.output) - self._begins_at

    def accepted(self) -> bool:
        """Note that the executor has the leg; only a decode leg can be too late."""
        return True

    def prompt(self, facts: PromptFacts) -> None:
        """Do nothing: what counts is told by the attempt that gives tokens."""

    def stop(self, reason: str) -> None:
        """Fence the leg and have its engine stop: the request is over."""
        assert self._attempt is not None, "only what was sent can be stopped"
        self._attempt.abandon(reason)
        self._runner.current.over(self.live, self)

    def adopt(self, attempt: Attempt) -> None:
        """Go on with an attempt that an earlier scheduler began."""
        self._attempt = attempt
        self._runner.current.begin(self.live, self)

    def _send(self, listener: AttemptListener, phase: Phase, fetch: KvHandoff | None = None) -> bool:
        """Send the leg to its executor; False if the executor has no session."""
        self._attempt = self._runner.send(self.live, self.decision, phase, listener, fetch=fetch)
        if self._attempt is None:
            return False
        self._runner.current.begin(self.live, self)
        return True

    # --- cost and blame ---------------------------------------------------------------------------

    def _reported(self, end: AttemptEnd) -> None:
        """Add the leg's cost to its request, and tell the request's observer that the leg is over."""
        self._charge(end.engine_time_s)
        self.live.observed.reported(self.live, self.decision, end, self._runner.clock.now())

    def _charge_lost(self) -> None:
        """Add the cost of a leg whose end is not reported: it took its engine from when it was sent until now."""
        if self._attempt is not None and self._attempt.accepted:
            self._charge(self._runner.clock.now() - self._attempt.sent_at)

    def _charge(self, engine_time_s: float) -> None:
        if not self._charged:
            self._charged = True
            self._runner.charge(self.live, self.decision, engine_time_s)

    def death(self, event: Loss | AttemptEnd) -> EngineDeath | None:
        """Return the death of the engine that ended the leg; None if the leg ended for another reason.

        A lost connection may hide a death.  That is only suspected of a leg without a new token: most connections that
        are lost belong to engines which die of something else.
        """
        attempt, tokens = self._attempt, self.fresh_tokens
        if attempt is None:
            return None
        if isinstance(event, AttemptEnd):
            died = event.cause is EndCause.FAILED and event.engine_died
        else:
            # Whether the executor had accepted the leg says nothing: a leg may end its engine before that is reported.
            died = event.engine_died or (event.cause is FailoverCause.LOST and not tokens)
        if not died:
            return None
        return EngineDeath(instance_id=attempt.instance_id, certain=event.engine_died, tokens=tokens)
