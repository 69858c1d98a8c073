"""What runs where: starts attempts, takes in what executors say of them, and moves requests on when one fails."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from sage_common.clock import Clock
from scheduler_svc.control.attempts.attempt import Attempt
from scheduler_svc.control.attempts.executor_link import AssignOrder, Continuation, ExecutorLink, KvHandoff
from scheduler_svc.control.attempts.guest import Guest
from scheduler_svc.control.attempts.handoff import Handoff
from scheduler_svc.control.attempts.handoffs import Handoffs
from scheduler_svc.control.attempts.summary import summary
from scheduler_svc.control.requests.live_request import LiveRequest, Placement
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.control.requests.output_log import OutputGap
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.decision import Decision, Phase
from scheduler_svc.domain.errors import (
    DeadlineExceeded,
    FieldViolation,
    GenerationFailed,
    InvalidRequest,
)
from scheduler_svc.domain.request import RequestState, ResumeMode, Sampling
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

PREFILL_SAMPLING = Sampling(temperature=0.0, max_tokens=1, ignore_eos=True)
"""Of prefill legs: the prompt is all that is wanted, their one token is discarded."""


KV_LEASE_EXPIRED = "kv_lease_expired"  # an executor's reason to reject a decode leg
DRAINING = "draining"  # its reason to reject what crossed with the order to drain, or its own wish to


class InstanceSessions(Protocol):
    """What assignments need to know of the executors' sessions."""

    def link_of(self, instance_id: str) -> tuple[ExecutorLink, int] | None:
        """The link to an instance and the number of its next Assign; None while it has no session."""
        ...

    def any_link(self, instance_id: str) -> ExecutorLink | None:
        """The link to an instance, for what is no Assign; None while it has no session."""
        ...

    def attempt_failed(self, instance_id: str, message: str) -> None: ...

    def attempt_succeeded(self, instance_id: str) -> None: ...

    def attempt_gone(self, instance_id: str) -> None:
        """An attempt left the instance: it may be drained now."""
        ...


class AttemptTable:
    """All attempts whose room may still be taken.  Bounded by the room there is."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        lifecycle: RequestTable,
        wakeup: Wakeup,
        *,
        epoch: int,
        max_attempts: int,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._lifecycle = lifecycle
        self._wakeup = wakeup
        self._epoch = epoch
        self._max_attempts = max_attempts
        self._table: dict[int, Attempt] = {}
        self._guests: dict[int, tuple[Guest, str]] = {}  # and where; bounded by the pairs of instances that warm up
        self.foreign = 0  # messages about attempts that belong to another instance than their sender; dropped
        self._sessions: InstanceSessions
        self.handoffs = Handoffs(scheduler, clock, self)

    def attach_sessions(self, sessions: InstanceSessions) -> None:
        """Closes the circle between attempts and sessions; called once, before anything runs."""
        self._sessions = sessions

    def __len__(self) -> int:
        return len(self._table)

    def on_instance(self, instance_id: str) -> list[Attempt]:
        return [a for a in self._table.values() if a.instance_id == instance_id]

    def find(self, attempt_number: int) -> Attempt | None:
        return self._table.get(attempt_number)

    # --- starting ---------------------------------------------------------------------------------

    def start(self, live: LiveRequest, decision: Decision) -> None:
        """Send a decision to its executors.  The room is reserved already."""
        live.observed.decided(live, decision, self._clock.now())
        if decision.prefill is not None:
            sent = self.handoffs.begin(live, decision)
        else:
            sent = self.send(live, decision, Phase.HYBRID)
            if not sent:
                self._scheduler.release(decision.attempt_number, self._clock.now(), output_tokens=None, finished=False)
        if not sent:
            # The session broke between the decision and now; its loss has not been announced yet.
            why = f"{decision.instance_id} lost its session"
            self.move_on(live, why, FailoverCause.LOST, excluded=decision.instance_id)
            return
        now = self._clock.now()
        live.placements.append(Placement(decision=decision, from_token=len(live.output)))
        live.transition(RequestState.RUNNING)
        if live.first_assigned_at is None:
            live.first_assigned_at = now
        live.note(now, "placed", _where(decision))
        live.changed()

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
        prefill = decision.prefill if phase is Phase.PREFILLING else None
        instance_id = prefill.instance_id if prefill is not None else decision.instance_id
        attempt_number = prefill.attempt_number if prefill is not None else decision.attempt_number
        found = self._sessions.link_of(instance_id)
        if found is None:
            return False
        link, number = found
        now = self._clock.now()
        assignment = Attempt(
            live=live,
            decision=decision,
            link=link,
            number=attempt_number,
            instance_id=instance_id,
            phase=phase,
            assigned_at=now,
            handoff=handoff,
        )
        self._table[attempt_number] = assignment
        self._scheduler.assigned(attempt_number, number)
        live.current = assignment
        link.assign(
            AssignOrder(
                number=number,
                epoch=self._epoch,
                attempt_number=attempt_number,
                phase=phase,
                request=live.request,
                sampling=live.request.sampling if prefill is None else PREFILL_SAMPLING,
                engine_priority=decision.engine_priority,
                remaining_s=None if live.request.deadline_at is None else live.request.deadline_at - now,
                reasons=decision.reasons,
                continuation=_continuation(live),
                handoff=fetch,
                trace_headers=live.observed.sent(live, assignment, now),
            )
        )
        return True

    def receive(self, attempt_number: int, guest: Guest, instance_id: str) -> None:
        """Pass what this instance says of the attempt to ``guest``, until it ends or ``dismiss``."""
        self._guests[attempt_number] = guest, instance_id

    def dismiss(self, attempt_number: int) -> None:
        self._guests.pop(attempt_number, None)

    def any_link(self, instance_id: str) -> ExecutorLink | None:
        return self._sessions.any_link(instance_id)

    def room_is_free(self) -> None:
        """Room was given back outside of an attempt's end: what waits may go now."""
        self._wakeup.kick()

    # --- what executors say: ``sender`` is the instance that says it -------------------------------

    def accepted(self, sender: str, attempt_number: int) -> None:
        assignment = self._owned(sender, attempt_number)
        if assignment is not None and not assignment.fenced:
            self._taken_on(assignment)

    def rejected(self, sender: str, attempt_number: int, reason: str, message: str) -> None:
        """The executor did not start it; nothing of it is left there."""
        if (guest := self._leaving_guest(sender, attempt_number)) is not None:
            guest.ended(AttemptEnd(attempt_number=attempt_number, cause=EndCause.FAILED, message=f"rejected: {reason}"))
            return
        assignment = self._owned(sender, attempt_number)
        if assignment is None:
            return
        why = f"{assignment.instance_id} rejected it: {reason} {message}".rstrip()
        # A handoff that came too late is nobody's fault: prefill runs again, anywhere.
        to_blame, whole = reason != KV_LEASE_EXPIRED, False
        if not to_blame and not assignment.fenced:
            whole = self.handoffs.expired(assignment, why)
        elif not assignment.fenced and reason != DRAINING:
            # Counted like a failure: where no other instance is, an executor that rejects at once is asked at leisure.
            self._sessions.attempt_failed(assignment.instance_id, f"rejected: {reason}")
        self._forget(assignment)
        excluded = assignment.instance_id if to_blame else ""
        self._over(assignment, why, FailoverCause.REJECTED, excluded=excluded, whole=whole)

    def tokens(
        self,
        sender: str,
        attempt_number: int,
        first_index: int,
        token_ids: Sequence[int],
        text: str,
        logprobs: Sequence[bytes] | None,
        kv_recomputed: bool = False,
    ) -> None:
        """New output of one attempt.  The hot path: once per token and request.

        ``kv_recomputed``: of a decode leg that computed the prompt itself, as its blocks could not be fetched.
        """
        assignment = self._table.get(attempt_number)
        if assignment is None or assignment.fenced:
            guest = self._guests.get(attempt_number)
            if guest is not None and guest[1] == sender:
                guest[0].token(self._clock.now())
            return
        if assignment.instance_id != sender:
            self._note_foreign(sender, attempt_number, assignment.instance_id)
            return
        if assignment.phase is Phase.PREFILLING:
            return  # its token is no part of the output, whatever an executor sends
        if not assignment.accepted and not self._taken_on(assignment):
            return
        live = assignment.live
        try:
            fresh = live.output.append(attempt_number, first_index, token_ids, text, logprobs)
        except OutputGap as gap:
            self._fail(assignment, str(gap))
            return
        if not fresh:
            return
        now = self._clock.now()
        if assignment.first_token_at is None:
            self._first_token(assignment, now, kv_recomputed)
        live.last_token_at = now
        live.changed()

    def ended(self, sender: str, end: AttemptEnd) -> None:
        """An attempt is over; whatever comes next for its request may start now."""
        if (guest := self._leaving_guest(sender, end.attempt_number)) is not None:
            guest.ended(end)
            return
        assignment = self._owned(sender, end.attempt_number)
        if assignment is None:
            return
        live = assignment.live
        live.cost += assignment.decision.prediction.cost_of(end.engine_time_s)
        live.observed.reported(live, assignment, end, self._clock.now())
        finished = end.cause is EndCause.FINISHED
        self._forget(assignment, output_tokens=end.total_tokens or None, finished=finished)
        if live.current is assignment:
            live.current = None
        if assignment.phase is Phase.PREFILLING:
            self.handoffs.prefill_ended(assignment, end)
            return
        if assignment.handoff is not None:
            failed = end.cause is EndCause.FAILED and not assignment.fenced
            reached = not end.kv_unclaimed and end.cause is not EndCause.INVALID
            self.handoffs.not_fetched(assignment, end.message, reached_engine=reached, failed=failed)
        if not assignment.fenced:
            self.conclude(assignment, end)

    def conclude(self, assignment: Attempt, end: AttemptEnd) -> None:
        """What the end of an attempt that counts means for its request."""
        live, instance_id = assignment.live, assignment.instance_id
        if end.cause is EndCause.FINISHED:
            if end.total_tokens != len(live.output):
                why = f"{instance_id} counts {end.total_tokens} output tokens, {len(live.output)} arrived"
                self.move_on(live, why, FailoverCause.MISMATCH, excluded=instance_id)
                return
            self._sessions.attempt_succeeded(instance_id)
            live.output.close(end.trailing_text)
            self._lifecycle.end(live, summary(live, end, self._clock.now()))
        elif end.cause is EndCause.INVALID:
            violation = FieldViolation(field=end.field, description=end.message)
            self._lifecycle.end(live, InvalidRequest([violation]))
        elif end.cause is EndCause.DEADLINE:
            self._lifecycle.end(live, DeadlineExceeded(f"after {len(live.output)} output tokens"))
        elif end.cause is EndCause.REPLAY_DIVERGED:
            message = f"could not be continued after its instance failed: {end.message}"
            self._lifecycle.end(live, GenerationFailed(message, attempts=live.attempts))
        elif end.cause is EndCause.CANCELLED:
            # Not by us, or it would be fenced: its executor is going away.
            why = f"{instance_id} gave it back: {end.message}"
            self.move_on(live, why, FailoverCause.RETURNED, excluded=instance_id)
        else:
            why = f"{instance_id} failed it: {end.message}"
            self.move_on(live, why, FailoverCause.FAILED, excluded=instance_id)
            if not end.kv_unclaimed:  # else it is the pair's failure, and puts the pair out of use
                self._sessions.attempt_failed(instance_id, end.message)

    # --- what happens to instances ----------------------------------------------------------------

    def instance_lost(self, instance_id: str, reason: str) -> None:
        """Its room is gone with it; what it ran goes on elsewhere."""
        why = f"{instance_id} was lost: {reason}"
        for assignment in self.on_instance(instance_id):
            self._forget(assignment)
            self._over(assignment, why, FailoverCause.LOST, excluded=instance_id)
        self.handoffs.decode_gone(instance_id, f"was lost: {reason}", FailoverCause.LOST)

    def instance_stalled(self, instance_id: str, reason: str) -> None:
        """Its work goes on elsewhere at once; its room stays taken until it says otherwise or is lost."""
        why = f"{instance_id} stalled: {reason}"
        for assignment in self.on_instance(instance_id):
            if not assignment.fenced:
                assignment.abandon(reason)
                assignment.fenced = False
                self._over(assignment, why, FailoverCause.STALLED, excluded=instance_id, room_is_free=False)
        self.handoffs.decode_gone(instance_id, f"stalled: {reason}", FailoverCause.STALLED)

    def never_arrived(self, assignment: Attempt) -> None:
        """Its Assign was lost with a broken stream: it may go anywhere, the same instance included."""
        self._forget(assignment)
        self._over(assignment, "its assignment was lost on the way", FailoverCause.UNDELIVERED, excluded="")

    # --- inside -----------------------------------------------------------------------------------

    def _taken_on(self, assignment: Attempt) -> bool:
        """Its executor has it.  False if that was too late to count."""
        assignment.accepted = True
        return self.handoffs.taken_on(assignment)

    def _owned(self, sender: str, attempt_number: int) -> Attempt | None:
        """The attempt, if there is one and it is the sender's."""
        assignment = self._table.get(attempt_number)
        if assignment is not None and assignment.instance_id != sender:
            self._note_foreign(sender, attempt_number, assignment.instance_id)
            return None
        return assignment

    def _leaving_guest(self, sender: str, attempt_number: int) -> Guest | None:
        """The guest whose attempt is over now, if it is the sender's."""
        guest, instance_id = self._guests.get(attempt_number, (None, ""))
        if guest is None or instance_id != sender:
            return None
        del self._guests[attempt_number]
        return guest

    def _note_foreign(self, sender: str, attempt_number: int, owner: str) -> None:
        """An executor is wrong about who it is or what it runs.  Said at 1, 2, 4, 8 ...: it may be said per token."""
        self.foreign += 1
        if self.foreign & (self.foreign - 1) == 0:
            log.error(
                "instance %s speaks of attempt %d, which is %s's: dropped (%d such messages so far)",
                sender,
                attempt_number,
                owner,
                self.foreign,
            )

    def _first_token(self, assignment: Attempt, now: float, kv_recomputed: bool) -> None:
        live = assignment.live
        assignment.first_token_at = now
        self._scheduler.first_token(assignment.number, now)
        live.observed.first_token(live, now)
        if assignment.handoff is not None:
            self.handoffs.first_token(assignment, kv_recomputed=kv_recomputed)
        live.note_first_token(now, assignment.instance_id)
        self._wakeup.kick()  # its prefill is over: the engine's lookahead has room

    def _fail(self, assignment: Attempt, why: str) -> None:
        live = assignment.live
        log.error(
            "attempt %d of %s on %s: %s", assignment.number, live.key, assignment.instance_id, why, extra=live.about
        )
        assignment.abandon(why)
        self.move_on(live, why, FailoverCause.MISMATCH, excluded=assignment.instance_id)

    def _over(
        self,
        assignment: Attempt,
        why: str,
        cause: FailoverCause,
        *,
        excluded: str,
        room_is_free: bool = True,
        whole: bool = False,
    ) -> None:
        """An attempt will give nothing more, for a reason that lies with its instance; fences it."""
        fenced, assignment.fenced = assignment.fenced, True
        live = assignment.live
        if live.current is assignment:
            live.current = None
        if assignment.phase is Phase.PREFILLING:
            self.handoffs.prefill_lost(assignment, why, cause, wanted=not fenced, room_is_free=room_is_free)
            return
        if assignment.handoff is not None:
            self.handoffs.not_fetched(assignment, why, reached_engine=False, failed=False)
        if not fenced:
            self.move_on(live, why, cause, excluded=excluded, whole=whole)

    def _forget(self, assignment: Attempt, *, output_tokens: int | None = None, finished: bool = False) -> None:
        """It is out of its executor's hands.  The room of a prefill leg may outlive it: ``handoffs`` sees to that."""
        del self._table[assignment.number]
        if assignment.phase is not Phase.PREFILLING:
            now = self._clock.now()
            self._scheduler.release(assignment.number, now, output_tokens=output_tokens, finished=finished)
        self._sessions.attempt_gone(assignment.instance_id)
        self._wakeup.kick()

    def move_on(
        self, live: LiveRequest, why: str, cause: FailoverCause, *, excluded: str = "", whole: bool = False
    ) -> None:
        """Have the request go on elsewhere.  It was accepted, so only its end can keep it out of the queue."""
        if live.state.ended:
            return
        now = self._clock.now()
        if live.state is RequestState.RUNNING:
            live.transition(RequestState.QUEUED)
        live.note_setback(now, why)
        live.observed.moved_on(live, cause, why, now)
        log.warning("request %s goes on elsewhere from token %d: %s", live.key, len(live.output), why, extra=live.about)
        if excluded:
            live.failed_on = live.failed_on | {excluded}
        if live.attempts >= self._max_attempts:
            self._lifecycle.end(live, GenerationFailed(why, attempts=live.attempts))
            return
        emitted = len(live.output)
        self._scheduler.enqueue(
            live.request, now, emitted_tokens=emitted, excluded=live.failed_on, resumed=True, whole=whole
        )
        live.changed()
        self._wakeup.kick()


def _continuation(live: LiveRequest) -> Continuation | None:
    if not len(live.output):
        return None
    return Continuation(
        emitted_token_ids=live.output.token_ids,
        emitted_text_length=live.output.text_length,
        replay=not live.request.sampling.resumable,
        best_effort=live.request.resume_mode is ResumeMode.BEST_EFFORT,
    )


def _where(decision: Decision) -> str:
    where = f"on {decision.instance_id}"
    if decision.prefill is not None:
        where = f"prefill on {decision.prefill.instance_id}, decode {where}"
    return f"{where}: {decision.reasons[0] if decision.reasons else ''}"
