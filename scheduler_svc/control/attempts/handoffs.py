"""Split requests between their two legs.

The prefill leg runs the prompt and leaves KV blocks behind; the decode leg, whose room is reserved from the start,
fetches them and emits every token.  Whatever fails before the decode leg's first token, the request goes on: the decode
instance computes the prompt itself in the room it has, or the request is placed anew, whole.

Blocks are kept for a lease, and nothing notices when they are read later.  Durations cross the wire, and messages may
be late: what counts here is the earliest moment the lease can end at, and whether the decode leg is known to have been
taken on by then.
"""

from __future__ import annotations

import itertools
import logging
from typing import Protocol

from scheduler_svc.control.attempts.attempt import Attempt
from scheduler_svc.control.attempts.executor_link import ExecutorLink, KvHandoff
from scheduler_svc.control.attempts.handoff import Handoff
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.control.timing.clock import ControlClock
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.decision import Decision, Phase
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.pd.fallbacks import Fallback
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


class Legs(Protocol):
    """What handoffs need of the attempts' table."""

    def send(
        self,
        live: LiveRequest,
        decision: Decision,
        phase: Phase,
        *,
        handoff: Handoff | None = None,
        fetch: KvHandoff | None = None,
    ) -> bool:
        """Send one leg to its executor.  False while its instance has no session."""
        ...

    def move_on(
        self, live: LiveRequest, why: str, cause: FailoverCause, *, excluded: str = "", whole: bool = False
    ) -> None:
        """Have the request go on elsewhere."""
        ...

    def conclude(self, assignment: Attempt, end: AttemptEnd) -> None:
        """An attempt ended for a reason that has nothing to do with its leg."""
        ...

    def any_link(self, instance_id: str) -> ExecutorLink | None: ...

    def room_is_free(self) -> None:
        """Room was given back: what waits may go now."""
        ...


RECOMPUTED = "the KV of its prompt could not be fetched and was computed here"
#: A prefill leg that failed for one of these says nothing about whether its pair can hand over.
_PAIR_NOT_TO_BLAME = frozenset({FailoverCause.UNDELIVERED, FailoverCause.REJECTED, FailoverCause.RETURNED})


class Handoffs:
    """Bounded by the attempts there are, and by leases for the blocks nobody fetches."""

    def __init__(self, scheduler: Scheduler, clock: ControlClock, legs: Legs) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._legs = legs
        self._waiting: dict[int, tuple[LiveRequest, Decision]] = {}  # by decode attempt: room reserved, nothing sent
        self._releases: dict[int, tuple[str, int]] = {}  # release number -> who was asked, prefill attempt
        self._numbers = itertools.count(1)

    def begin(self, live: LiveRequest, decision: Decision) -> bool:
        """Send the prefill leg.  False if neither instance has a session."""
        leg = decision.prefill
        assert leg is not None, "only split requests have a handoff"
        handoff = Handoff(
            prefill_instance=leg.instance_id,
            prefill_number=leg.attempt_number,
            decode_instance=decision.instance_id,
            pair=self._scheduler.pair_between(leg.instance_id, decision.instance_id),
        )
        self._waiting[decision.attempt_number] = (live, decision)
        if self._legs.send(live, decision, Phase.PREFILLING, handoff=handoff):
            assert live.current is not None, "the leg that was just sent"
            live.current.on_dismissed = lambda: self._give_up_decode(decision)
            return True
        self._release(leg.attempt_number)
        return self._prefill_there(live, decision, f"{leg.instance_id} lost its session")

    # --- the prefill leg --------------------------------------------------------------------------

    def prefill_ended(self, assignment: Attempt, end: AttemptEnd) -> None:
        """Its sequence is over; the room of what it left behind is still taken."""
        handoff = assignment.handoff
        assert handoff is not None, "a prefill leg belongs to a handoff"
        if end.cause is EndCause.FINISHED and end.kv_transfer_params:
            self._left_behind(assignment, handoff, end)
            return
        self._release(handoff.prefill_number)
        if assignment.fenced:
            self._give_up_decode(assignment.decision)
        elif end.cause is EndCause.DEADLINE:
            self._give_up_decode(assignment.decision)
            self._legs.conclude(assignment, end)
        else:
            # What is invalid is for the decode instance to say: it runs the whole request, as it was asked for.
            given_back = end.cause in (EndCause.CANCELLED, EndCause.INVALID)
            cause = FailoverCause.RETURNED if given_back else FailoverCause.FAILED
            self.prefill_failed(assignment, end.message or "prefill left no KV blocks to fetch", cause)

    def prefill_failed(self, assignment: Attempt, why: str, cause: FailoverCause) -> None:
        """It was rejected, lost, stalled or failed: the decode instance computes the prompt itself."""
        decision, handoff = assignment.decision, assignment.handoff
        assert handoff is not None, "a prefill leg belongs to a handoff"
        said = f"prefill on {assignment.instance_id} failed: {why}"
        pair = None if cause in _PAIR_NOT_TO_BLAME else handoff.pair
        self._scheduler.handoff_failed(pair, Fallback.PREFILL_FAILED, said, self._clock.now())
        if not self._prefill_there(assignment.live, decision, said):
            self._legs.move_on(assignment.live, said, cause, excluded=decision.instance_id, whole=True)

    def prefill_lost(
        self, assignment: Attempt, why: str, cause: FailoverCause, *, wanted: bool, room_is_free: bool
    ) -> None:
        """It may not say how it ended.  ``wanted``: its request still wanted it."""
        handoff = assignment.handoff
        assert handoff is not None, "a prefill leg belongs to a handoff"
        if room_is_free:
            self._release(handoff.prefill_number)
        if wanted:
            self.prefill_failed(assignment, why, cause)
        else:
            self._give_up_decode(assignment.decision)

    def _left_behind(self, assignment: Attempt, handoff: Handoff, end: AttemptEnd) -> None:
        now = self._clock.now()
        live, decision = assignment.live, assignment.decision
        handoff.params = end.kv_transfer_params
        handoff.prefill_ended_at = now
        handoff.lease_ends_at = now + end.kv_lease_s
        # It cannot have begun before prefill was sent and computed, however long the news of it took.
        handoff.fetch_before = min(assignment.assigned_at + end.engine_time_s, now) + end.kv_lease_s
        self._scheduler.park(handoff.prefill_number, now)
        self._clock.call_at(handoff.lease_ends_at, lambda: self._release(handoff.prefill_number))
        if assignment.fenced:
            self._give_up_decode(decision)
            self._nobody_fetches(handoff)
            return
        live.note(now, "prefilled", f"on {handoff.prefill_instance}; {handoff.decode_instance} fetches")
        del self._waiting[decision.attempt_number]
        fetch = KvHandoff(params=handoff.params, lease_s=handoff.fetch_before - now)
        if not self._legs.send(live, decision, Phase.DECODING, handoff=handoff, fetch=fetch):
            self._scheduler.release(decision.attempt_number, now, output_tokens=None, finished=False)
            self._nobody_fetches(handoff)
            why = f"{decision.instance_id} lost its session"
            self._legs.move_on(live, why, FailoverCause.LOST, excluded=decision.instance_id)

    # --- the decode leg ---------------------------------------------------------------------------

    def taken_on(self, assignment: Attempt) -> bool:
        """Its engine has the decode leg, since now at the latest, and keeps the lease alive.

        False if that may have been too late: then the leg is given up.
        """
        handoff, now = assignment.handoff, self._clock.now()
        if handoff is None or assignment.phase is not Phase.DECODING or now <= handoff.fetch_before:
            return True
        late_s = now - handoff.fetch_before
        why = f"{assignment.instance_id} took its decode leg on up to {late_s:.1f} s after the lease of its KV"
        whole = self.expired(assignment, why)
        assignment.abandon(why)
        self._legs.move_on(assignment.live, why, FailoverCause.UNDELIVERED, whole=whole)
        return False

    def expired(self, assignment: Attempt, why: str) -> bool:
        """The decode leg came too late for its blocks, and nobody is to blame: once more, then whole.

        Returns whether the request is to run whole.
        """
        now, whole = self._clock.now(), assignment.live.attempts > 1
        self._scheduler.handoff_failed(None, Fallback.LEASE_EXPIRED, why, now)
        assignment.live.note(now, "fallback", f"{why}; {'it runs whole' if whole else 'prefill runs again'}")
        return whole

    def first_token(self, assignment: Attempt, *, kv_recomputed: bool) -> None:
        """The decode leg's first token is here: the blocks were fetched, or its engine computed the prompt itself."""
        handoff, assignment.handoff = assignment.handoff, None
        assert handoff is not None, "a decode leg belongs to a handoff until its first token"
        live, now = assignment.live, self._clock.now()
        if kv_recomputed:
            self._nobody_fetches(handoff)
            self._scheduler.handoff_failed(handoff.pair, Fallback.RECOMPUTED, RECOMPUTED, now)
            log.warning("request %s: %s: %s", live.key, assignment.instance_id, RECOMPUTED, extra=live.about)
            live.note(now, "fallback", f"{assignment.instance_id}: {RECOMPUTED}")
            return
        live.prefill_ended_at = handoff.prefill_ended_at
        self._release(handoff.prefill_number)
        took_s = now - handoff.prefill_ended_at
        self._scheduler.handed_over(handoff.pair, took_s)
        live.observed.handed_over(live, took_s)

    def not_fetched(self, assignment: Attempt, why: str, *, reached_engine: bool, failed: bool) -> None:
        """The decode leg is over before its first token.

        ``reached_engine``: its engine had the request, so its connector lets go of the blocks by itself.
        ``failed``: the handoff is to blame, not the caller or an operator.
        """
        handoff, assignment.handoff = assignment.handoff, None
        if handoff is None:
            return
        if reached_engine:
            self._release(handoff.prefill_number)
        else:
            self._nobody_fetches(handoff)
        if failed:
            self._scheduler.handoff_failed(handoff.pair, Fallback.NOT_FETCHED, why, self._clock.now())

    def decode_gone(self, instance_id: str, why: str, cause: FailoverCause) -> None:
        """An instance that was to decode is lost or stalled while prefill still runs elsewhere."""
        for live, decision in [w for w in self._waiting.values() if w[1].instance_id == instance_id]:
            if live.current is not None and live.current.decision is decision:
                live.current.abandon(why)
            self._give_up_decode(decision)
            said = f"{instance_id}, which was to decode it, {why}"
            self._legs.move_on(live, said, cause, excluded=instance_id)

    # --- blocks that nobody fetches ---------------------------------------------------------------

    def released(self, sender: str, number: int, *, released: bool, message: str) -> None:
        """An executor answered a release."""
        asked, prefill_number = self._releases.get(number, ("", 0))
        if asked != sender:
            return
        del self._releases[number]
        if released:
            self._release(prefill_number)
        else:
            log.warning("KV blocks of attempt %d wait for the end of their lease: %s", prefill_number, message)

    def _nobody_fetches(self, handoff: Handoff) -> None:
        """Ask an instance that could fetch them to let the prefill side know; else their lease runs out."""
        found = self._rejecting_link(handoff)
        if found is None:
            log.warning("KV blocks of attempt %d wait for the end of their lease", handoff.prefill_number)
            return
        instance_id, link = found
        number = next(self._numbers)
        self._releases[number] = instance_id, handoff.prefill_number
        self._clock.call_at(handoff.lease_ends_at, lambda: self._unanswered(number))
        link.release_kv(number, handoff.params)

    def _unanswered(self, number: int) -> None:
        self._releases.pop(number, None)

    def _rejecting_link(self, handoff: Handoff) -> tuple[str, ExecutorLink] | None:
        others = [
            p.decode.instance_id for p in self._scheduler.pairs() if p.prefill.instance_id == handoff.prefill_instance
        ]
        for instance_id in (handoff.decode_instance, *others):
            instance = self._scheduler.find_instance(instance_id)
            link = self._legs.any_link(instance_id)
            if link is not None and instance is not None and instance.state is not InstanceState.STALLED:
                return instance_id, link
        return None

    # --- inside -----------------------------------------------------------------------------------

    def _prefill_there(self, live: LiveRequest, decision: Decision, why: str) -> bool:
        """Have the decode instance compute the prompt itself, in the room it has.  False if it cannot."""
        if live.state.ended:
            self._give_up_decode(decision)
            return True
        if self._waiting.pop(decision.attempt_number, None) is None:
            return False
        if self._legs.send(live, decision, Phase.HYBRID):
            log.warning(
                "request %s: %s; %s computes the prompt itself", live.key, why, decision.instance_id, extra=live.about
            )
            live.note(self._clock.now(), "fallback", f"{why}; {decision.instance_id} computes the prompt itself")
            return True
        self._scheduler.release(decision.attempt_number, self._clock.now(), output_tokens=None, finished=False)
        return False

    def _give_up_decode(self, decision: Decision) -> None:
        """Free the room kept for a decode leg that was never sent."""
        if self._waiting.pop(decision.attempt_number, None) is not None:
            self._scheduler.release(decision.attempt_number, self._clock.now(), output_tokens=None, finished=False)
            self._legs.room_is_free()

    def _release(self, prefill_number: int) -> None:
        self._scheduler.release(prefill_number, self._clock.now(), output_tokens=None, finished=False)
