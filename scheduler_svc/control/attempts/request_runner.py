"""Runs requests: sends their attempts to executors, and requeues a request whose attempt failed."""

from __future__ import annotations

import logging

from sage_common.clock import Clock
from scheduler_svc.control.attempts.attempt import Attempt
from scheduler_svc.control.attempts.attempt_listener import AttemptListener
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.current_attempts import CurrentAttempts
from scheduler_svc.control.attempts.executor_link import AssignOrder, Continuation, KvHandoff
from scheduler_svc.control.attempts.instance_events import InstanceEvents
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.attempt_end import AttemptEnd
from scheduler_svc.domain.continuation import ContinuationMode, continuation_mode
from scheduler_svc.domain.decision import Decision, Phase
from scheduler_svc.domain.errors import GenerationFailed
from scheduler_svc.domain.request import RequestState, ResumeMode, Sampling
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

PREFILL_SAMPLING = Sampling(temperature=0.0, max_tokens=1, ignore_eos=True)
"""Sampling of prefill legs: only the prompt's KV is needed, and the one token is discarded."""


DRAINING = "draining"
"""The reason that a draining executor gives for rejecting an attempt that was sent before its drain was known."""


class RequestRunner:
    """What all kinds of attempts share: they are sent, their capacity is released, their requests are requeued."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        requests: RequestTable,
        attempts: AttemptTable,
        events: InstanceEvents,
        wakeup: Wakeup,
        *,
        epoch: int,
        max_attempts: int,
    ) -> None:
        """``max_attempts`` bounds the attempts of one request; the next failure ends it."""
        self.scheduler = scheduler
        self.clock = clock
        self.requests = requests
        self.events = events
        self.current = CurrentAttempts()
        self._attempts = attempts
        self._wakeup = wakeup
        self._epoch = epoch
        self._max_attempts = max_attempts
        requests.on_end(self.current.request_ended)

    def send(
        self,
        live: LiveRequest,
        decision: Decision,
        phase: Phase,
        listener: AttemptListener,
        *,
        fetch: KvHandoff | None = None,
    ) -> Attempt | None:
        """Send one leg of a request to its executor; None if the executor has no session.

        A prefill leg goes to the decision's prefill instance, any other to its decode instance.  ``fetch`` is the KV
        that a decode leg fetches.
        """
        prefill = decision.prefill if phase is Phase.PREFILLING else None
        instance_id = prefill.instance_id if prefill is not None else decision.instance_id
        number = prefill.attempt_number if prefill is not None else decision.attempt_number
        now = self.clock.now()
        live.continuation = self._continuation_mode(live, instance_id)

        def order(assign_number: int) -> AssignOrder:
            self.scheduler.assigned(number, assign_number)
            return AssignOrder(
                number=assign_number,
                epoch=self._epoch,
                attempt_number=number,
                phase=phase,
                request=live.request,
                sampling=live.request.sampling if prefill is None else PREFILL_SAMPLING,
                engine_priority=decision.engine_priority,
                remaining_s=None if live.request.deadline_at is None else live.request.deadline_at - now,
                reasons=decision.reasons,
                continuation=_continuation(live),
                handoff=fetch,
                trace_headers=live.observed.sent(
                    live, now, attempt_number=number, instance_id=instance_id, phase=phase
                ),
            )

        return self._attempts.send(number, instance_id, phase, listener, order)

    def _continuation_mode(self, live: LiveRequest, instance_id: str) -> ContinuationMode | None:
        """Return how an attempt goes on from the delivered output; None if there is none."""
        if not len(live.output):
            return None
        instance = self.scheduler.find_instance(instance_id)
        return continuation_mode(live.request.sampling, None if instance is None else instance.facts)

    def release(self, attempt_number: int, *, output_tokens: int | None = None, finished: bool = False) -> None:
        """Free the capacity that was reserved for an attempt, so that waiting requests may take it.

        See ``Scheduler.release`` for the arguments; does nothing if the capacity is free already.
        """
        self.scheduler.release(attempt_number, self.clock.now(), output_tokens=output_tokens, finished=finished)
        self._wakeup.notify()

    def capacity_changed(self) -> None:
        """Wake the dispatcher: waiting requests may have capacity now."""
        self._wakeup.notify()

    def note_rejection(self, instance_id: str, reason: str) -> None:
        """Tell what a rejection says about the instance.

        One that drains gets nothing more: its wish to leave is still on the way.  Any other rejection counts like a
        failure, so that an executor that rejects everything cools down even if it is the only one.
        """
        if reason == DRAINING:
            self.events.drains(instance_id)
        else:
            self.events.attempt_failed(instance_id, f"rejected: {reason}")

    def account(self, live: LiveRequest, decision: Decision, end: AttemptEnd) -> None:
        """Add what an attempt cost to its request, and tell the request's observer that the attempt is over."""
        live.cost += decision.prediction.cost_of(end.engine_time_s)
        live.observed.reported(live, decision, end, self.clock.now())

    def requeue(
        self, live: LiveRequest, why: str, cause: FailoverCause, *, excluded: str = "", whole: bool = False
    ) -> None:
        """Put a request whose attempt failed back into its queue; end it if it has used all its attempts.

        The request continues from the output that arrived.  ``excluded`` is an instance to avoid from now on.
        ``whole`` keeps it from being split again.  A request that has ended stays ended.
        """
        if live.state.ended:
            return
        now = self.clock.now()
        if live.state is RequestState.RUNNING:
            live.transition(RequestState.QUEUED)
        live.note_requeued(now, why)
        live.observed.requeued(live, cause, why, now)
        log.warning("request %s is requeued at token %d: %s", live.key, len(live.output), why, extra=live.about)
        if excluded:
            live.failed_on = live.failed_on | {excluded}
        if live.attempts >= self._max_attempts:
            self.requests.end(live, GenerationFailed(why, attempts=live.attempts))
            return
        self.scheduler.enqueue(
            live.request,
            now,
            emitted_tokens=len(live.output),
            excluded=live.failed_on,
            resumed=True,
            whole=whole,
        )
        live.changed()
        self._wakeup.notify()


def _continuation(live: LiveRequest) -> Continuation | None:
    """Return what an attempt continues from; None for a request without output."""
    if live.continuation is None:
        return None
    return Continuation(
        emitted_token_ids=live.output.token_ids,
        emitted_text_length=live.output.text_length,
        mode=live.continuation,
        best_effort=live.request.resume_mode is ResumeMode.BEST_EFFORT,
    )
