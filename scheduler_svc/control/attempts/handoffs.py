"""Runs split requests through their two legs.

The prefill leg computes the prompt and leaves KV blocks behind; the decode leg, whose capacity is reserved from the
start, fetches them and generates every token.  Whatever fails before the decode leg's first token, the request goes on:
the decode instance computes the prompt itself in the capacity reserved there, or the request is placed again, whole.

The prefill engine keeps the blocks for a lease; reading them later causes no error, and may read another prompt's KV.
Only the lease's duration crosses the wire, in messages that may be late.  So the decode leg must be known to have
started before the earliest moment at which the lease can end.
"""

from __future__ import annotations

import logging

from scheduler_svc.control.attempts.attempt_listener import Loss
from scheduler_svc.control.attempts.decode_leg import DecodeLeg
from scheduler_svc.control.attempts.executor_link import KvHandoff
from scheduler_svc.control.attempts.handoff import Handoff
from scheduler_svc.control.attempts.kv_releases import KvReleases
from scheduler_svc.control.attempts.prefill_leg import PrefillLeg
from scheduler_svc.control.attempts.quarantine import EngineDeath
from scheduler_svc.control.attempts.request_attempt import RequestAttempt
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.decision import Decision, Phase
from scheduler_svc.domain.errors import DeadlineExceeded
from scheduler_svc.domain.pd.fallbacks import Fallback

log = logging.getLogger(__name__)

_PAIR_NOT_TO_BLAME = frozenset({FailoverCause.UNDELIVERED, FailoverCause.REJECTED, FailoverCause.RETURNED})
"""Causes of a failed prefill leg that say nothing about whether its pair can hand over."""


class Handoffs:
    """Sends the legs of split requests.  Bounded by the capacity that is reserved for them."""

    def __init__(self, runner: RequestRunner, kv_releases: KvReleases) -> None:
        self._runner = runner
        self._scheduler = runner.scheduler
        self._clock = runner.clock
        self._kv_releases = kv_releases
        self._waiting: dict[int, tuple[LiveRequest, Decision]] = {}  # decode legs not sent yet, by attempt number

    def begin(self, live: LiveRequest, decision: Decision) -> bool:
        """Send the prefill leg of a split request; False if neither of its instances has a session."""
        leg = decision.prefill
        assert leg is not None, "only split requests have a handoff"
        handoff = Handoff(
            prefill_instance=leg.instance_id,
            prefill_number=leg.attempt_number,
            decode_instance=decision.instance_id,
            pair=self._scheduler.pair_between(leg.instance_id, decision.instance_id),
        )
        self._waiting[decision.attempt_number] = (live, decision)
        if PrefillLeg(self, self._runner, live, decision, handoff).send():
            return True
        self._runner.release(leg.attempt_number)
        return self._prefill_at_decode_instance(live, decision, f"{leg.instance_id} lost its session")

    def instance_lost(self, instance_id: str, reason: str) -> None:
        """Requeue the requests that were to decode on an instance that is lost while prefill runs elsewhere."""
        self._decode_instance_gone(instance_id, f"was lost: {reason}", FailoverCause.LOST)

    def instance_stalled(self, instance_id: str, reason: str) -> None:
        """Requeue the requests that were to decode on an instance that stalls while prefill runs elsewhere."""
        self._decode_instance_gone(instance_id, f"stalled: {reason}", FailoverCause.STALLED)

    # --- reports of prefill legs ------------------------------------------------------------------

    def prefill_ended(self, leg: PrefillLeg, end: AttemptEnd, *, counted: bool) -> None:
        """Send the decode leg, or fall back if prefill left nothing to fetch."""
        if end.cause is EndCause.FINISHED and end.kv_transfer_params:
            self._park(leg.handoff, leg.sent_at, end)
            if counted:
                self._send_decode_leg(leg)
            else:
                self.give_up_decode(leg.decision)
                self._kv_releases.ask(leg.handoff)
            return
        self._runner.release(leg.handoff.prefill_number)
        if not counted:
            self.give_up_decode(leg.decision)
        elif end.cause is EndCause.DEADLINE:
            self.give_up_decode(leg.decision)
            self._runner.requests.end(leg.live, DeadlineExceeded(f"after {len(leg.live.output)} output tokens"))
        else:
            # If the request is invalid, the decode instance will find out: it runs the whole request, unchanged.
            given_back = end.cause in (EndCause.CANCELLED, EndCause.INVALID)
            cause = FailoverCause.RETURNED if given_back else FailoverCause.FAILED
            why = end.message or "prefill left no KV blocks to fetch"
            self._prefill_failed(leg, why, cause, leg.death(end))

    def prefill_lost(self, leg: PrefillLeg, loss: Loss) -> None:
        """Fall back if the request still needs the leg; else free the capacity reserved for its decode leg."""
        if loss.capacity_is_free:
            self._runner.release(leg.handoff.prefill_number)
        if loss.counted:
            self._prefill_failed(leg, loss.why, loss.cause, leg.death(loss))
        else:
            self.give_up_decode(leg.decision)

    def give_up_decode(self, decision: Decision) -> None:
        """Free the capacity reserved for a decode leg that was not sent yet."""
        if self._waiting.pop(decision.attempt_number, None) is not None:
            self._runner.release(decision.attempt_number)

    # --- inside -----------------------------------------------------------------------------------

    def _park(self, handoff: Handoff, sent_at: float, end: AttemptEnd) -> None:
        """Keep the prefill leg's KV tokens reserved until its blocks are fetched or released, or the lease ends."""
        now = self._clock.now()
        handoff.params = end.kv_transfer_params
        handoff.prefill_ended_at = now
        handoff.lease_ends_at = now + end.kv_lease_s
        # The lease cannot have begun before prefill was sent and computed, however late its end was reported.
        handoff.fetch_before = min(sent_at + end.engine_time_s, now) + end.kv_lease_s
        self._scheduler.park(handoff.prefill_number, now)
        self._clock.call_at(handoff.lease_ends_at, lambda: self._runner.release(handoff.prefill_number))

    def _send_decode_leg(self, leg: PrefillLeg) -> None:
        live, decision, handoff = leg.live, leg.decision, leg.handoff
        now = handoff.prefill_ended_at
        live.note(now, "prefilled", f"on {handoff.prefill_instance}; {handoff.decode_instance} fetches")
        del self._waiting[decision.attempt_number]
        fetch = KvHandoff(params=handoff.params, lease_s=handoff.fetch_before - now)
        decode = DecodeLeg(self._runner, self._kv_releases, live, decision, handoff)
        if not decode.send(phase=Phase.DECODING, fetch=fetch):
            self._runner.release(decision.attempt_number)
            self._kv_releases.ask(handoff)
            why = f"{decision.instance_id} lost its session"
            self._runner.requeue(live, why, FailoverCause.LOST, excluded=decision.instance_id)

    def _prefill_failed(self, leg: PrefillLeg, why: str, cause: FailoverCause, death: EngineDeath | None) -> None:
        """Have the decode instance compute the prompt; requeue the request where it cannot.

        A request that is quarantined now, because its prefill engine died, goes back into its queue.
        """
        reason = f"prefill on {leg.handoff.prefill_instance} failed: {why}"
        pair = None if cause in _PAIR_NOT_TO_BLAME else leg.handoff.pair
        self._scheduler.handoff_failed(pair, Fallback.PREFILL_FAILED, reason, self._clock.now())
        if death is not None and not leg.live.state.ended and self._runner.engine_died(leg.live, death):
            self.give_up_decode(leg.decision)
            self._runner.requeue(leg.live, reason, cause, whole=True)
        elif not self._prefill_at_decode_instance(leg.live, leg.decision, reason):
            self._runner.requeue(leg.live, reason, cause, excluded=leg.decision.instance_id, whole=True)

    def _prefill_at_decode_instance(self, live: LiveRequest, decision: Decision, why: str) -> bool:
        """Have the decode instance run the whole request in the capacity reserved there; False if it cannot."""
        if live.state.ended:
            self.give_up_decode(decision)
            return True
        if self._waiting.pop(decision.attempt_number, None) is None:
            return False
        if RequestAttempt(self._runner, live, decision).send():
            detail = f"{why}; {decision.instance_id} computes the prompt itself"
            log.warning("request %s: %s", live.key, detail, extra=live.about)
            live.note(self._clock.now(), "fallback", detail)
            return True
        self._runner.release(decision.attempt_number)
        return False

    def _decode_instance_gone(self, instance_id: str, why: str, cause: FailoverCause) -> None:
        for live, decision in [waiting for waiting in self._waiting.values() if waiting[1].instance_id == instance_id]:
            work = self._runner.current.find(live)
            if work is not None and work.decision is decision:
                work.stop(why)
            self.give_up_decode(decision)
            reason = f"{instance_id}, which was to decode it, {why}"
            self._runner.requeue(live, reason, cause, excluded=instance_id)
