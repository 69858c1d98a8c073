"""The second leg of a split request: fetches the prompt's KV and generates the output."""

from __future__ import annotations

import logging

from scheduler_svc.control.attempts.attempt_listener import Loss
from scheduler_svc.control.attempts.handoff import Handoff
from scheduler_svc.control.attempts.kv_releases import KvReleases
from scheduler_svc.control.attempts.request_attempt import RequestAttempt
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.pd.fallbacks import Fallback

log = logging.getLogger(__name__)

KV_LEASE_EXPIRED = "kv_lease_expired"
"""The reason that an executor gives for rejecting a decode leg whose KV lease is over."""

RECOMPUTED = "the KV of its prompt could not be fetched and was computed here"


class DecodeLeg(RequestAttempt):
    """A RequestAttempt that fetches the prompt's KV from a prefill instance.

    The leg owns the handoff until its first token shows that the KV was fetched.
    """

    def __init__(
        self, runner: RequestRunner, kv_releases: KvReleases, live: LiveRequest, decision: Decision, handoff: Handoff
    ) -> None:
        super().__init__(runner, live, decision)
        self._kv_releases = kv_releases
        self._handoff: Handoff | None = handoff

    def accepted(self) -> bool:
        """Note that the engine has the leg and keeps the KV lease alive; give the leg up if that may be too late.

        Reading blocks after their lease causes no error, so the engine must have the leg before the earliest moment at
        which the lease can end.
        """
        handoff, now = self._handoff, self._runner.clock.now()
        if handoff is None or now <= handoff.fetch_before:
            return True
        late_s = now - handoff.fetch_before
        why = f"{self.decision.instance_id} started its decode leg up to {late_s:.1f} s after the lease of its KV"
        whole = self._expired(why)
        self.stop(why)
        self._runner.requeue(self.live, why, FailoverCause.UNDELIVERED, whole=whole)
        return False

    def rejected(self, reason: str, message: str, *, counted: bool) -> None:
        """Requeue the request; a KV lease that is over blames no instance, so prefill may run again anywhere."""
        why = f"{self.decision.instance_id} rejected it: {reason} {message}".rstrip()
        expired = reason == KV_LEASE_EXPIRED
        whole = self._expired(why) if expired and counted else False
        self._not_fetched(why, reached_engine=False, failed=False)
        if not expired:
            super().rejected(reason, message, counted=counted)
            return
        self._over()
        if counted:
            self._runner.requeue(self.live, why, FailoverCause.REJECTED, whole=whole)

    def ended(self, end: AttemptEnd, *, counted: bool) -> LiveRequest | None:
        """Free KV that was not fetched, then conclude as for a whole request."""
        failed = end.cause is EndCause.FAILED and counted
        reached_engine = not end.kv_unclaimed and end.cause is not EndCause.INVALID
        self._not_fetched(end.message, reached_engine=reached_engine, failed=failed)
        return super().ended(end, counted=counted)

    def lost(self, loss: Loss) -> None:
        """Free KV that was not fetched, and requeue the request."""
        self._not_fetched(loss.why, reached_engine=False, failed=False)
        super().lost(loss)

    def _fetched(self, now: float, *, kv_recomputed: bool) -> None:
        """Conclude the handoff with the leg's first token: the KV was fetched, or its engine computed the prompt."""
        handoff, self._handoff = self._handoff, None
        assert handoff is not None, "a decode leg has a handoff until its first token"
        live, scheduler, instance_id = self.live, self._runner.scheduler, self.decision.instance_id
        if kv_recomputed:
            self._kv_releases.ask(handoff)
            scheduler.handoff_failed(handoff.pair, Fallback.RECOMPUTED, RECOMPUTED, now)
            log.warning("request %s: %s: %s", live.key, instance_id, RECOMPUTED, extra=live.about)
            live.note(now, "fallback", f"{instance_id}: {RECOMPUTED}")
            return
        live.prefill_ended_at = handoff.prefill_ended_at
        self._runner.release(handoff.prefill_number)
        took_s = now - handoff.prefill_ended_at
        scheduler.handed_over(handoff.pair, took_s)
        live.observed.handed_over(live, took_s)

    def _expired(self, why: str) -> bool:
        """Record that the leg came too late for its KV; return whether the request is to run whole from now on.

        After the first time prefill runs again; after the second the request runs whole.
        """
        live, now = self.live, self._runner.clock.now()
        live.setbacks.leases_expired += 1
        whole = live.setbacks.leases_expired > 1
        self._runner.scheduler.handoff_failed(None, Fallback.LEASE_EXPIRED, why, now)
        live.note(now, "fallback", f"{why}; {'it runs whole' if whole else 'prefill runs again'}")
        return whole

    def _not_fetched(self, why: str, *, reached_engine: bool, failed: bool) -> None:
        """Free the KV of a leg that is over before its first token.

        ``reached_engine`` says that the leg's engine had the request, so its connector frees the blocks by itself.
        ``failed`` says that the handoff is to blame, not the caller or an operator.
        """
        handoff, self._handoff = self._handoff, None
        if handoff is None:
            return
        if reached_engine:
            self._runner.release(handoff.prefill_number)
        else:
            self._kv_releases.ask(handoff)
        if failed:
            now = self._runner.clock.now()
            self._runner.scheduler.handoff_failed(handoff.pair, Fallback.NOT_FETCHED, why, now)
