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
from scheduler_svc.control.attempts.quarantine import EngineDeath, Quarantine
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.control.requests.policy_failure import announce
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.continuation import ContinuationMode, continuation_mode
from scheduler_svc.domain.decision import Decision, Phase
from scheduler_svc.domain.errors import GenerationFailed, PolicyFailed
from scheduler_svc.domain.request import RequestState, ResumeMode, Sampling
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

PREFILL_SAMPLING = Sampling(temperature=0.0, max_tokens=1, ignore_eos=True)
"""Sampling of prefill legs: only the prompt's KV is needed, and the one token is discarded."""


FAILURES = frozenset({FailoverCause.LOST, FailoverCause.STALLED, FailoverCause.FAILED, FailoverCause.MISMATCH})
"""Causes for which an attempt without a new token counts towards ``max_attempts``.

An attempt that an executor gave back or did not start, or that never reached one, was moved without fault of its own.
"""

MOVES_LIMIT = 128
"""Attempts of one request in all, those that moved without fault included: it bounds the record of placements.

If ``max_attempts`` is larger, that is the limit.
"""

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
        """``max_attempts`` bounds the attempts of one request that fail without a new token."""
        self.scheduler = scheduler
        self.clock = clock
        self.requests = requests
        self.events = events
        self.current = CurrentAttempts()
        self._attempts = attempts
        self._wakeup = wakeup
        self._epoch = epoch
        self._max_attempts = max_attempts
        self._moves_limit = max(MOVES_LIMIT, max_attempts)
        self._quarantine = Quarantine(scheduler)
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
                live=live,
                sent_at=now,
                policy=decision.policy,
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
            self.events.attempt_rejected(instance_id, reason)

    def charge(self, live: LiveRequest, decision: Decision, engine_time_s: float) -> None:
        """Add what an attempt cost to its request; an executor may report any duration, so less than 0 counts as 0."""
        cost = max(0.0, decision.prediction.cost_of(engine_time_s))
        live.cost += cost
        live.observed.charged(live, cost)

    def engine_died(self, live: LiveRequest, death: EngineDeath) -> bool:
        """Note that an engine died under a request that is not requeued yet; return whether it is quarantined now."""
        self._quarantine.died(live, death, self.clock.now())
        return live.setbacks.alone

    def outlived(self, live: LiveRequest, attempt_number: int, tokens: int) -> None:
        """Note that the attempt of a quarantined request has delivered this many tokens so far."""
        self._quarantine.outlived(live, attempt_number, tokens, self.clock.now())

    def requeue(
        self,
        live: LiveRequest,
        why: str,
        cause: FailoverCause,
        *,
        excluded: str = "",
        whole: bool = False,
        death: EngineDeath | None = None,
    ) -> None:
        """Put a request whose attempt is over back into its queue, or end it.

        The request continues from the output that arrived.  ``excluded`` is an instance to avoid from now on.
        ``whole`` keeps it from being split again.  ``death`` is that of the attempt's engine, if it died.  The request
        ends after ``max_attempts`` attempts that failed without a new token, after 128 attempts in all,
        or if its quarantine says so.  A request that has ended stays ended.
        """
        if live.state.ended:
            return
        now, setbacks = self.clock.now(), live.setbacks
        setbacks.failures += cause in FAILURES and _without_progress(live)
        setbacks.whole = setbacks.whole or whole
        if excluded:
            setbacks.failed_on = setbacks.failed_on | {excluded}
        if live.state is RequestState.RUNNING:
            live.transition(RequestState.QUEUED)
        live.note_requeued(now, why)
        live.observed.requeued(live, cause, why, now)
        log.warning("request %s is requeued at token %d: %s", live.key, len(live.output), why, extra=live.about)
        convicted = self._quarantine.died(live, death, now) if death is not None else ""
        if convicted:
            self.requests.end(live, GenerationFailed(convicted, attempts=live.attempts, request_is_at_fault=True))
        elif setbacks.failures >= self._max_attempts or live.attempts >= self._moves_limit:
            self.requests.end(live, GenerationFailed(why, attempts=live.attempts))
        else:
            self.enqueue(live)

    def enqueue(self, live: LiveRequest) -> None:
        """Let a request that was accepted before wait for a placement; it ends if the policy's code fails for it."""
        setbacks, now = live.setbacks, self.clock.now()
        try:
            self.scheduler.enqueue(
                live.request,
                now,
                emitted_tokens=len(live.output),
                excluded=setbacks.failed_on,
                resumed=True,
                whole=setbacks.whole or setbacks.alone,
                alone=setbacks.alone,
                identity=live.identity,
            )
        except PolicyFailed as error:
            announce(error, live.key)
            self.requests.end(live, error)
            return
        live.changed()
        self._wakeup.notify()


def _without_progress(live: LiveRequest) -> bool:
    """Return whether the attempt that is over was sent and delivered no new token."""
    return live.state is RequestState.RUNNING and len(live.output) <= live.placements[-1].from_token


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
