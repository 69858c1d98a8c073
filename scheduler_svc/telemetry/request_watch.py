"""Watches one request: counts what happens to it and, if its trace is sampled, takes notes for its spans."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from opentelemetry.trace import SpanContext

from sage_telemetry.trace_context import child_of, headers_of
from scheduler_svc.control.requests.observed_request import ObservedRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.decision import Decision, Phase
from scheduler_svc.telemetry import end_note
from scheduler_svc.telemetry.decision_note import note_on
from scheduler_svc.telemetry.end_note import EndNote
from scheduler_svc.telemetry.request_metrics import RequestMetrics
from scheduler_svc.telemetry.request_notes import AttemptNote, RequestNotes, WaitNote


class LatestPass:
    """Figures of the scheduling pass whose decisions are being sent."""

    __slots__ = ("decisions", "took_s")

    def __init__(self) -> None:
        self.took_s = 0.0
        self.decisions = 0


class RequestWatch:
    """Implements control's RequestObserver for one request.  Times are seconds on the control clock."""

    __slots__ = (
        "_content",
        "_context",
        "_decision",
        "_finish",
        "_gap_since",
        "_latest_pass",
        "_metrics",
        "_model_label",
        "_notes",
        "_submission",
    )

    def __init__(
        self,
        submission: Submission | None,
        metrics: RequestMetrics,
        model_label: Callable[[str], str],
        latest_pass: LatestPass,
        *,
        context: SpanContext | None,
        notes: RequestNotes | None,
        finish: Callable[[RequestNotes, EndNote], None],
        content: bool,
        decision: Decision | None = None,
    ) -> None:
        """``context`` is None if nothing is traced; ``notes`` is None unless the trace is sampled.

        ``submission``: None for a request that was accepted before; ``decision`` then says where it runs, if it does.
        """
        self._submission = submission
        self._metrics = metrics
        self._model_label = model_label
        self._latest_pass = latest_pass
        self._context = context
        self._notes = notes
        self._finish = finish
        self._content = content
        self._decision = decision
        self._gap_since: float | None = None  # time of the last token before the failover under way

    @property
    def traceparent(self) -> str:
        """The W3C traceparent of the request's span; empty if nothing is traced."""
        return headers_of(self._context)["traceparent"] if self._context is not None else ""

    def refused(self, error: BaseException, now: float) -> None:
        """Count the refusal, and hand in the notes.  Does nothing once the request was accepted."""
        submission = self._submission
        if submission is None:
            return  # it was accepted: ``ended`` counts it
        attainment = self._metrics.refused(submission, error, model=self._model_label(submission.model))
        if self._notes is not None:
            self._notes.attainment = attainment
            self._hand_in(self._notes, end_note.of_refused(error), now)

    def accepted(self, live: ObservedRequest, now: float) -> None:
        """Note that the request waits in its queue."""
        self._submission = None  # releases its copy of the prompt
        if self._notes is not None:
            self._notes.accepted_at = now
            self._notes.waits.append(WaitNote(since=now, resumed=False))

    def decided(self, live: ObservedRequest, decision: Decision, now: float) -> None:
        """Note a decision; the first one also ends the measured time in the queue."""
        if not live.placements:
            self._metrics.waited(live, decision)
        self._decision = decision
        notes = self._notes
        if notes is not None:
            latest = self._latest_pass
            notes.decisions.append(note_on(decision, took_s=latest.took_s, batch=latest.decisions))
            notes.waits[-1].until = decision.decided_at
            notes.waits[-1].left_behind = decision.queue_length

    def sent(
        self, live: ObservedRequest, now: float, *, attempt_number: int, instance_id: str, phase: Phase
    ) -> Mapping[str, str]:
        """Note an attempt that is sent, and return the trace headers for its executor."""
        if live.continuation is not None:
            self._metrics.continued(live, live.continuation)
        if self._context is None:
            return live.request.trace_headers
        child = child_of(self._context)
        notes = self._notes
        if notes is not None:
            note = AttemptNote(
                context=child,
                number=attempt_number,
                instance_id=instance_id,
                phase=phase,
                from_token=len(live.output),
                continuation=live.continuation and live.continuation.value,
                sent_at=now,
            )
            before = notes.attempt
            if before is not None:
                before.close(now, "lost", "its executor did not report its end")
                note.retries = before if before.failure is not None else None
            notes.attempts.append(note)
        return headers_of(child)

    def charged(self, live: ObservedRequest, cost: float) -> None:
        """Count the cost of an attempt that is over."""
        self._metrics.charged(live, cost)

    def reported(self, live: ObservedRequest, decision: Decision, end: AttemptEnd, now: float) -> None:
        """Note how an attempt's executor says it ended."""
        note = self._notes.attempt if self._notes is not None else None
        if note is not None and note.number == end.attempt_number:
            note.close(now, end.cause.value, _failure(end))

    def first_token(self, live: ObservedRequest, now: float) -> None:
        """Record the first token of the current attempt."""
        decision = self._decision
        assert decision is not None, "an attempt begins with a decision"
        gap_s = None if self._gap_since is None else now - self._gap_since
        self._gap_since = None
        self._metrics.first_token(live, decision, now, gap_s=gap_s)
        if self._notes is not None and self._notes.attempt is not None:
            self._notes.attempt.first_token_at = now

    def handed_over(self, live: ObservedRequest, took_s: float) -> None:
        """Record the seconds of a handoff from prefill to decode."""
        self._metrics.handed_over(live, took_s)

    def requeued(self, live: ObservedRequest, cause: FailoverCause, why: str, now: float) -> None:
        """Count a failover, and note that the request waits again."""
        self._metrics.requeued(live, cause)
        if self._gap_since is None and len(live.output):
            self._gap_since = live.last_token_at
        notes = self._notes
        if notes is None:
            return
        note = notes.attempt
        if note is not None and not note.handed_over:
            note.fail(now, cause.value, why)
        notes.waits.append(WaitNote(since=now, resumed=True))

    def quarantined(self, live: ObservedRequest, now: float) -> None:
        """Count a request that runs alone from now on."""
        self._metrics.quarantined(live)

    def ended(self, live: ObservedRequest, now: float) -> None:
        """Count the end of an accepted request, and hand in the notes."""
        assert live.outcome is not None, "an ended request has an outcome"
        attainment = self._metrics.ended(live, live.outcome, now)
        notes = self._notes
        if notes is not None:
            notes.attainment = attainment
            if notes.attempt is not None:
                notes.attempt.close(now, live.state.value)
            self._hand_in(notes, end_note.of_ended(live, content=self._content), now)

    def _hand_in(self, notes: RequestNotes, end: EndNote, now: float) -> None:
        """Give the notes to the exporter's thread.

        Nothing changes the notes after this, and they hold no reference to the request.
        """
        self._notes = None
        notes.ended_at = now
        notes.zero_ns = time.time_ns() - round(now * 1e9)
        self._finish(notes, end)


def _failure(end: AttemptEnd) -> str | None:
    """Describe a failed attempt without the parts of an engine's message that may quote the request."""
    if end.cause is EndCause.INVALID:
        return f"the engine found {end.field or 'the request'} invalid"
    if end.cause in (EndCause.FAILED, EndCause.REPLAY_DIVERGED, EndCause.DEADLINE):
        return end.message or end.cause.value
    return None
