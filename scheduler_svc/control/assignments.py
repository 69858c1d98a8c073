"""What runs where: starts attempts, takes in what executors say of them, and moves requests on when one fails."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from scheduler_svc.control.assignment import Assignment
from scheduler_svc.control.clock import ControlClock
from scheduler_svc.control.lifecycle import Lifecycle
from scheduler_svc.control.links import AssignOrder, Continuation, ExecutorLink
from scheduler_svc.control.live_request import Finished, LiveRequest, Placement
from scheduler_svc.control.output_log import OutputGap
from scheduler_svc.control.wakeup import Wakeup
from scheduler_svc.domain.core import SchedulingCore
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.errors import (
    DeadlineExceeded,
    FieldViolation,
    GenerationFailed,
    InvalidRequest,
)
from scheduler_svc.domain.request import RequestState, ResumeMode

log = logging.getLogger(__name__)


class EndCause(Enum):
    """Why an attempt ended, as its executor says."""

    FINISHED = "finished"
    CANCELLED = "cancelled"  # we said so
    INVALID = "invalid"  # the caller's fault, noticed by the engine
    FAILED = "failed"  # the engine's fault
    DEADLINE = "deadline"
    REPLAY_DIVERGED = "replay_diverged"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEnd:
    """An executor's last word on an attempt: its room in the engine is free."""

    attempt_number: int
    cause: EndCause
    finish_reason: str = ""  # "stop" | "length"
    stop_string: str = ""
    stop_token_id: int | None = None
    total_tokens: int = 0  # output tokens over all attempts
    trailing_text: str = ""
    cached_prompt_tokens: int = 0
    field: str = ""
    message: str = ""
    engine_time_s: float = 0.0


class Sessions(Protocol):
    """What assignments need to know of the executors' sessions."""

    def link_of(self, instance_id: str) -> tuple[ExecutorLink, int] | None:
        """The link to an instance and the number of its next Assign; None while it has no session."""
        ...

    def attempt_failed(self, instance_id: str, message: str) -> None: ...

    def attempt_succeeded(self, instance_id: str) -> None: ...

    def attempt_gone(self, instance_id: str) -> None:
        """An attempt left the instance: it may be drained now."""
        ...


class Assignments:
    """All attempts whose room may still be taken.  Bounded by the room there is."""

    def __init__(
        self,
        core: SchedulingCore,
        clock: ControlClock,
        lifecycle: Lifecycle,
        wakeup: Wakeup,
        *,
        epoch: int,
        max_attempts: int,
    ) -> None:
        self._core = core
        self._clock = clock
        self._lifecycle = lifecycle
        self._wakeup = wakeup
        self._epoch = epoch
        self._max_attempts = max_attempts
        self._table: dict[int, Assignment] = {}
        self._sessions: Sessions

    def attach_sessions(self, sessions: Sessions) -> None:
        """Closes the circle between attempts and sessions; called once, before anything runs."""
        self._sessions = sessions

    def __len__(self) -> int:
        return len(self._table)

    def on_instance(self, instance_id: str) -> list[Assignment]:
        return [a for a in self._table.values() if a.instance_id == instance_id]

    def find(self, attempt_number: int) -> Assignment | None:
        return self._table.get(attempt_number)

    # --- starting ---------------------------------------------------------------------------------

    def start(self, live: LiveRequest, decision: Decision) -> None:
        """Send a decision to its executor.  The room is reserved already."""
        now = self._clock.now()
        found = self._sessions.link_of(decision.instance_id)
        if found is None:
            # The session broke between the decision and now; its loss has not been announced yet.
            self._core.release(decision.attempt_number, now, output_tokens=None, finished=False)
            self._requeue(live, f"{decision.instance_id} lost its session", excluded=decision.instance_id)
            return
        link, number = found
        assignment = Assignment(live=live, decision=decision, link=link, assigned_at=now)
        self._table[decision.attempt_number] = assignment
        self._core.assigned(decision.attempt_number, number)
        live.current = assignment
        live.placements.append(Placement(decision=decision, from_token=len(live.output)))
        live.transition(RequestState.RUNNING)
        if live.first_assigned_at is None:
            live.first_assigned_at = now
        live.note(now, "placed", f"on {decision.instance_id}: {decision.reasons[0] if decision.reasons else ''}")
        link.assign(
            AssignOrder(
                number=number,
                epoch=self._epoch,
                decision=decision,
                request=live.request,
                remaining_s=None if live.request.deadline_at is None else live.request.deadline_at - now,
                continuation=_continuation(live),
            )
        )
        live.changed()

    # --- what executors say -----------------------------------------------------------------------

    def accepted(self, attempt_number: int) -> None:
        assignment = self._table.get(attempt_number)
        if assignment is not None:
            assignment.accepted = True

    def rejected(self, attempt_number: int, reason: str, message: str) -> None:
        """The executor did not start it; nothing of it is left there."""
        assignment = self._forget(attempt_number, output_tokens=None, finished=False)
        if assignment is not None and not assignment.fenced:
            assignment.live.current = None
            why = f"{assignment.instance_id} rejected it: {reason} {message}".rstrip()
            # Counted like a failure: where no other instance is, an executor that rejects at once is asked at leisure.
            self._sessions.attempt_failed(assignment.instance_id, f"rejected: {reason}")
            self._requeue(assignment.live, why, excluded=assignment.instance_id)

    def tokens(
        self,
        attempt_number: int,
        first_index: int,
        token_ids: Sequence[int],
        text: str,
        logprobs: Sequence[Any] | None,
    ) -> None:
        """New output of one attempt.  The hot path: once per token and request."""
        assignment = self._table.get(attempt_number)
        if assignment is None or assignment.fenced:
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
            self._first_token(assignment, now)
        live.last_token_at = now
        live.changed()

    def ended(self, end: AttemptEnd) -> None:
        """An attempt is over; whatever comes next for its request may start now."""
        assignment = self._forget(
            end.attempt_number,
            output_tokens=end.total_tokens or None,
            finished=end.cause is EndCause.FINISHED,
        )
        if assignment is None:
            return
        live = assignment.live
        live.cost += assignment.decision.prediction.cost_of(end.engine_time_s)
        if assignment.fenced:
            return
        live.current = None
        self._conclude(assignment, end)

    def _conclude(self, assignment: Assignment, end: AttemptEnd) -> None:
        live, instance_id = assignment.live, assignment.instance_id
        if end.cause is EndCause.FINISHED:
            if end.total_tokens != len(live.output):
                why = f"{instance_id} counts {end.total_tokens} output tokens, {len(live.output)} arrived"
                self._requeue(live, why, excluded=instance_id)
                return
            self._sessions.attempt_succeeded(instance_id)
            live.output.close(end.trailing_text)
            self._lifecycle.end(live, self._finished(assignment, end))
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
            self._requeue(live, f"{instance_id} gave it back: {end.message}", excluded=instance_id)
        else:
            self._sessions.attempt_failed(instance_id, end.message)
            self._requeue(live, f"{instance_id} failed it: {end.message}", excluded=instance_id)

    # --- what happens to instances ----------------------------------------------------------------

    def instance_lost(self, instance_id: str, reason: str) -> None:
        """Its room is gone with it; what it ran goes on elsewhere."""
        for assignment in self.on_instance(instance_id):
            self._forget(assignment.number, output_tokens=None, finished=False)
            if not assignment.fenced:
                assignment.fenced = True
                assignment.live.current = None
                self._requeue(assignment.live, f"{instance_id} was lost: {reason}", excluded=instance_id)

    def instance_stalled(self, instance_id: str, reason: str) -> None:
        """Its work goes on elsewhere at once; its room stays taken until it says otherwise or is lost."""
        for assignment in self.on_instance(instance_id):
            if not assignment.fenced:
                live = assignment.live
                assignment.abandon(reason)
                self._requeue(live, f"{instance_id} stalled: {reason}", excluded=instance_id)

    def never_arrived(self, assignment: Assignment) -> None:
        """Its Assign was lost with a broken stream: it may go anywhere, the same instance included."""
        self._forget(assignment.number, output_tokens=None, finished=False)
        if not assignment.fenced:
            assignment.live.current = None
            self._requeue(assignment.live, "its assignment was lost on the way", excluded="")

    # --- inside -----------------------------------------------------------------------------------

    def _first_token(self, assignment: Assignment, now: float) -> None:
        live = assignment.live
        assignment.first_token_at = now
        self._core.first_token(assignment.number, now)
        if live.first_token_at is None:
            live.first_token_at = now
            live.note(now, "first_token", f"from {assignment.instance_id}")
        self._wakeup.kick()  # its prefill is over: the engine's lookahead has room

    def _fail(self, assignment: Assignment, why: str) -> None:
        live = assignment.live
        log.error("attempt %d of %s on %s: %s", assignment.number, live.key, assignment.instance_id, why)
        assignment.abandon(why)
        self._requeue(live, why, excluded=assignment.instance_id)

    def _forget(self, attempt_number: int, *, output_tokens: int | None, finished: bool) -> Assignment | None:
        assignment = self._table.pop(attempt_number, None)
        if assignment is not None:
            self._core.release(attempt_number, self._clock.now(), output_tokens=output_tokens, finished=finished)
            self._sessions.attempt_gone(assignment.instance_id)
            self._wakeup.kick()
        return assignment

    def _requeue(self, live: LiveRequest, why: str, *, excluded: str) -> None:
        """Have the request go on elsewhere.  It was accepted, so only its end can keep it out of the queue."""
        if live.state.ended:
            return
        now = self._clock.now()
        if live.state is RequestState.RUNNING:
            live.transition(RequestState.QUEUED)
        live.note(now, "requeued", why)
        log.warning("request %s goes on elsewhere from token %d: %s", live.key, len(live.output), why)
        if excluded:
            live.failed_on = live.failed_on | {excluded}
        if live.attempts >= self._max_attempts:
            self._lifecycle.end(live, GenerationFailed(why, attempts=live.attempts))
            return
        self._core.enqueue(live.request, now, emitted_tokens=len(live.output), excluded=live.failed_on, resumed=True)
        live.changed()
        self._wakeup.kick()

    def _finished(self, assignment: Assignment, end: AttemptEnd) -> Finished:
        live, now = assignment.live, self._clock.now()
        arrived, first = live.request.arrived_at, live.first_token_at
        assigned = live.first_assigned_at if live.first_assigned_at is not None else now
        return Finished(
            finish_reason=end.finish_reason,
            stop_string=end.stop_string,
            stop_token_id=end.stop_token_id,
            prompt_tokens=live.request.prompt_tokens,
            completion_tokens=len(live.output),
            cached_prompt_tokens=end.cached_prompt_tokens,
            attempts=live.attempts,
            queue_s=assigned - arrived,
            ttft_s=None if first is None else first - arrived,
            prefill_s=None if first is None else first - assigned,
            decode_s=None if first is None else (live.last_token_at or now) - first,
            total_s=now - arrived,
            cost=live.cost,
            slo=tuple(live.measure_slo(now)),
        )


def _continuation(live: LiveRequest) -> Continuation | None:
    if not len(live.output):
        return None
    return Continuation(
        emitted_token_ids=live.output.token_ids,
        emitted_text_length=live.output.text_length,
        replay=not live.request.sampling.resumable,
        best_effort=live.request.resume_mode is ResumeMode.BEST_EFFORT,
    )


def continued(assignments: Iterable[Assignment]) -> frozenset[int]:
    """Numbers of the attempts whose output still counts."""
    return frozenset(a.number for a in assignments if not a.fenced)
