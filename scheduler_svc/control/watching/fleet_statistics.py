"""Counts events and keeps the latest decisions and failovers, for clients that watch the fleet.

It is always on, with or without telemetry: it gets every event first and passes it on to the next observer.  Its memory
is bounded: the buckets of five minutes, and the latest few decisions and failovers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scheduler_svc.control.requests.observed_request import ObservedRequest
from scheduler_svc.control.requests.observer import FailoverCause, Observer, RequestObserver
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.control.watching import attainment
from scheduler_svc.control.watching.attainment import Attainment
from scheduler_svc.control.watching.rolling_counts import Counts, RollingCounts
from scheduler_svc.domain.attempt_end import AttemptEnd
from scheduler_svc.domain.decision import Decision, Phase
from scheduler_svc.domain.request import Priority, RequestKey
from scheduler_svc.domain.targets import Targets

DECISIONS_KEPT = 64
"""Latest decisions that are kept."""

FAILOVERS_KEPT = 16
"""Latest failovers that are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecentDecision:
    """A decision without its candidates, of which there may be thousands."""

    at: float  # seconds on the control clock
    key: RequestKey
    policy: str
    phase: Phase
    instance_id: str
    prefill_instance_id: str  # split requests only
    waited_s: float
    reason: str  # the most important one


@dataclass(frozen=True, kw_only=True, slots=True)
class RecentFailover:
    """A request that was requeued."""

    at: float  # seconds on the control clock
    key: RequestKey
    cause: FailoverCause
    why: str


class FleetStatistics:
    """Implements Observer; ``counts``, ``decisions`` and ``failovers`` hold the results."""

    def __init__(self, watched_by: Observer, default_targets: Mapping[Priority, Targets], now: float) -> None:
        self._next = watched_by
        self._default_targets = default_targets
        self.counts = RollingCounts(now)
        self.decisions: deque[RecentDecision] = deque(maxlen=DECISIONS_KEPT)  # oldest first
        self.failovers: deque[RecentFailover] = deque(maxlen=FAILOVERS_KEPT)  # oldest first

    def arrived(self, submission: Submission, now: float) -> RequestObserver:
        """Return an observer that counts the request."""
        return CountedRequest(self, self._next.arrived(submission, now), submission)

    def adopted(self, live: ObservedRequest, decision: Decision | None, now: float) -> RequestObserver:
        """Return an observer that counts the end of the request; an earlier scheduler counted its acceptance."""
        return CountedRequest(self, self._next.adopted(live, decision, now), None)

    def scheduled(self, decisions: Sequence[Decision], took_s: float) -> None:
        """Keep the latest decisions, without their candidates."""
        self.decisions.extend(_in_short(decision) for decision in decisions[-DECISIONS_KEPT:])
        self._next.scheduled(decisions, took_s)

    def lagged(self, lag_s: float) -> None:
        """Pass the lag on."""
        self._next.lagged(lag_s)

    def accepted(self, now: float) -> None:
        """Count an accepted request."""
        for counts in self.counts.open(now):
            counts.accepted += 1

    def refused(self, submission: Submission, error: BaseException, now: float) -> None:
        """Count a refused request."""
        found = attainment.of_refused(submission, error)
        for counts in self.counts.open(now):
            counts.refused += 1
            _judge(counts, submission.priority, found)

    def requeued(self, live: ObservedRequest, cause: FailoverCause, why: str, now: float) -> None:
        """Count and keep a failover."""
        self.failovers.append(RecentFailover(at=now, key=live.key, cause=cause, why=why))
        for counts in self.counts.open(now):
            counts.failovers += 1

    def ended(self, live: ObservedRequest, now: float) -> None:
        """Count a request that ended, with its output and its targets."""
        found = attainment.of_ended(live, now, self._default_targets)
        for counts in self.counts.open(now):
            counts.ended[live.state] += 1
            counts.output_tokens += len(live.output)
            _note_latencies(counts, live, now)
            _judge(counts, live.request.priority, found)


class CountedRequest:
    """Implements RequestObserver: counts one request and passes every event on."""

    __slots__ = ("_next", "_statistics", "_submission")

    def __init__(self, statistics: FleetStatistics, watched_by: RequestObserver, submission: Submission | None) -> None:
        self._statistics = statistics
        self._next = watched_by
        self._submission = submission

    @property
    def traceparent(self) -> str:
        """The trace context that the next observer knows."""
        return self._next.traceparent

    def refused(self, error: BaseException, now: float) -> None:
        """Count the refusal of a request that was not accepted."""
        if self._submission is not None:
            self._statistics.refused(self._submission, error, now)
        self._next.refused(error, now)

    def accepted(self, live: ObservedRequest, now: float) -> None:
        """Count the accepted request."""
        self._submission = None  # frees its copy of the prompt
        self._statistics.accepted(now)
        self._next.accepted(live, now)

    def decided(self, live: ObservedRequest, decision: Decision, now: float) -> None:
        """Pass the event on."""
        self._next.decided(live, decision, now)

    def sent(
        self, live: ObservedRequest, now: float, *, attempt_number: int, instance_id: str, phase: Phase
    ) -> Mapping[str, str]:
        """Pass the event on."""
        return self._next.sent(live, now, attempt_number=attempt_number, instance_id=instance_id, phase=phase)

    def charged(self, live: ObservedRequest, cost: float) -> None:
        """Pass the event on."""
        self._next.charged(live, cost)

    def reported(self, live: ObservedRequest, decision: Decision, end: AttemptEnd, now: float) -> None:
        """Pass the event on."""
        self._next.reported(live, decision, end, now)

    def first_token(self, live: ObservedRequest, now: float) -> None:
        """Pass the event on."""
        self._next.first_token(live, now)

    def handed_over(self, live: ObservedRequest, took_s: float) -> None:
        """Pass the event on."""
        self._next.handed_over(live, took_s)

    def requeued(self, live: ObservedRequest, cause: FailoverCause, why: str, now: float) -> None:
        """Count the failover."""
        self._statistics.requeued(live, cause, why, now)
        self._next.requeued(live, cause, why, now)

    def quarantined(self, live: ObservedRequest, now: float) -> None:
        """Pass the event on."""
        self._next.quarantined(live, now)

    def ended(self, live: ObservedRequest, now: float) -> None:
        """Count the request's end."""
        self._statistics.ended(live, now)
        self._next.ended(live, now)


def _note_latencies(counts: Counts, live: ObservedRequest, now: float) -> None:
    if live.first_token_at is None:
        return
    counts.first_token.note(live.first_token_at - live.request.arrived_at)
    counts.total.note(now - live.request.arrived_at)
    after_first = len(live.output) - 1
    if after_first > 0 and live.last_token_at is not None:
        counts.per_token.note((live.last_token_at - live.first_token_at) / after_first)


def _judge(counts: Counts, priority: Priority, found: Attainment) -> None:
    if found.counts:
        (counts.met if found.kept else counts.missed)[priority] += 1


def _in_short(decision: Decision) -> RecentDecision:
    return RecentDecision(
        at=decision.decided_at,
        key=decision.key,
        policy=decision.policy,
        phase=decision.phase,
        instance_id=decision.instance_id,
        prefill_instance_id=decision.prefill.instance_id if decision.prefill is not None else "",
        waited_s=decision.waited_s,
        reason=decision.reasons[0] if decision.reasons else "",
    )
