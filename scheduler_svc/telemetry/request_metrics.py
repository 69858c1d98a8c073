"""The metrics of requests, decisions and failovers."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from sage_telemetry import catalogue
from sage_telemetry.meter import Meter
from scheduler_svc.control.requests.observed_request import ObservedRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.control.requests.outcome import Finished, Outcome
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.control.watching import attainment as slo
from scheduler_svc.domain.continuation import ContinuationMode
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets
from scheduler_svc.telemetry.adapter_label import AdapterLabels
from scheduler_svc.telemetry.outcomes import overload_cause, reason_of
from scheduler_svc.telemetry.tenant_label import tenant_label

UNKNOWN_MODEL = "(unknown)"
REFUSED = "refused"
FLEETS_REASONS = ("queue_full", "overloaded", "limit_reached", "no_instance", "internal")
"""Reasons of refusals for which the fleet is to blame, not the caller: alerts look at them."""
LEAST_S = 1e-6  # seconds; shorter measurements count as this, so that relative errors stay finite


class RequestMetrics:
    """Counts requests in the meter's instruments; each label set's child is kept, so that a count is one addition."""

    def __init__(self, meter: Meter, default_targets: Mapping[Priority, Targets], tenants: Container[str] = ()) -> None:
        """Make the instruments.  ``tenants``: those that labels name; others count together."""
        self._tenants = tenants
        self._adapters = AdapterLabels()
        self._adapter_requests = meter.counter(catalogue.ADAPTER_REQUESTS)
        self._tenant_tokens = meter.counter(catalogue.TENANT_TOKENS)
        self._overloaded = meter.counter(catalogue.OVERLOADED)
        self._default_targets = default_targets
        self._requests = meter.counter(catalogue.REQUESTS)
        self._duration = meter.histogram(catalogue.REQUEST_DURATION)
        self._ttft = meter.histogram(catalogue.TTFT)
        self._tpot = meter.histogram(catalogue.TPOT)
        self._queue_time = meter.histogram(catalogue.QUEUE_TIME)
        self._tokens = meter.counter(catalogue.TOKENS)
        self._cost = meter.counter(catalogue.COST)
        self._slo = meter.counter(catalogue.SLO)
        self._decisions = meter.counter(catalogue.DECISIONS)
        self._decision_duration = meter.weighted(catalogue.DECISION_DURATION)
        self._error = meter.histogram(catalogue.PREDICTION_ERROR)
        self._failovers = meter.counter(catalogue.FAILOVERS)
        self._continuations = meter.counter(catalogue.CONTINUATIONS)
        self._quarantined = meter.counter(catalogue.QUARANTINED)
        self._gap = meter.histogram(catalogue.FAILOVER_GAP)
        self._handoff = meter.histogram(catalogue.PD_HANDOFF)
        self._begun: frozenset[str] = frozenset()

    def begin(self, models: Iterable[str]) -> None:
        """Begin the counters that alerts look at with 0 for each new model.

        Without that, a rate would not see the first burst of failovers or missed targets.  ``models``: all known
        models, and UNKNOWN_MODEL.
        """
        now = frozenset(models)
        for model in sorted(now - self._begun):
            self._quarantined.begin(model)
            for cause in FailoverCause:
                self._failovers.begin(model, cause.value)
            for priority in _NAMES.values():
                for result in ("met", "missed"):
                    self._slo.begin(model, priority, slo.ANY, result)
                for reason in FLEETS_REASONS:
                    self._requests.begin(model, priority, REFUSED, reason)
        self._begun = now

    def refused(self, submission: Submission, error: BaseException, *, model: str) -> slo.Attainment:
        """Count a request that was refused, or whose client left before it was accepted.

        ``model``: as the registry knows it, or UNKNOWN_MODEL.  Returns which targets it missed.
        """
        reason = reason_of(error)
        priority = _name(submission.priority)
        gone = reason in ("client_gone", "cancelled")
        outcome = "cancelled" if gone else REFUSED
        self._requests.labels(model, priority, outcome, reason).inc()
        self._count_overload(error, submission.key.tenant, priority)
        attainment = slo.of_refused(submission, error)
        self._count_slo(model, priority, attainment)
        return attainment

    def scheduled(self, decisions: Sequence[Decision], took_s: float) -> None:
        """Count the decisions of a pass that took ``took_s`` seconds; each gets an equal share of the time."""
        each_s = took_s / len(decisions)
        for decision in decisions:
            self._decisions.labels(decision.policy, decision.phase.value, decision.rule).inc()
        self._decision_duration.observe(each_s, len(decisions))

    def waited(self, live: ObservedRequest, decision: Decision) -> None:
        """Record the time in the queue of a request that was placed for the first time."""
        child = self._queue_time.labels(live.request.model, _name(live.request.priority), decision.policy)
        child.observe(decision.waited_s)

    def first_token(self, live: ObservedRequest, decision: Decision, now: float, *, gap_s: float | None) -> None:
        """Record the first token of the current attempt.

        ``gap_s``: seconds since the last token of the attempt that failed, or None if none failed.  Times are seconds
        on the control clock.
        """
        request = live.request
        if gap_s is not None:
            self._gap.labels(request.model).observe(gap_s)
        if live.first_token_at is None:
            child = self._ttft.labels(request.model, _name(request.priority), decision.policy)
            child.observe(now - request.arrived_at)
        if not _is_adopted(live, decision):
            self._predicted("first_token", decision.prediction.first_token_s, now - decision.decided_at)

    def charged(self, live: ObservedRequest, cost: float) -> None:
        """Add the cost of an attempt that is over, in the currency of the instances' prices."""
        # A counter raises for a negative amount, and an executor may report any duration.
        self._cost.labels(live.request.model, _name(live.request.priority)).inc(max(0.0, cost))

    def requeued(self, live: ObservedRequest, cause: FailoverCause) -> None:
        """Count a request that is requeued."""
        self._failovers.labels(live.request.model, cause.value).inc()

    def continued(self, live: ObservedRequest, mode: ContinuationMode) -> None:
        """Count an attempt that goes on after delivered tokens."""
        self._continuations.labels(live.request.model, mode.value).inc()

    def quarantined(self, live: ObservedRequest) -> None:
        """Count a request that was present at engine deaths and runs alone."""
        self._quarantined.labels(live.request.model).inc()

    def handed_over(self, live: ObservedRequest, took_s: float) -> None:
        """Record the seconds from the end of prefill to the first token of decode."""
        self._handoff.labels(live.request.model).observe(took_s)

    def ended(self, live: ObservedRequest, outcome: Outcome, now: float) -> slo.Attainment:
        """Count an accepted request that ended at ``now``.  Returns which targets it met and missed."""
        request = live.request
        model, priority, state = request.model, _name(request.priority), live.state.value
        self._requests.labels(model, priority, state, reason_of(outcome)).inc()
        self._duration.labels(model, priority, state).observe(now - request.arrived_at)
        if request.adapter:
            adapter = self._adapters.label(model, request.adapter, placed=bool(live.placements))
            self._adapter_requests.labels(model, adapter, state).inc()
        tenant = tenant_label(live.key.tenant, self._tenants)
        if isinstance(outcome, Exception):
            self._count_overload(outcome, live.key.tenant, priority)
        if live.placements:
            self._tenant_tokens.labels(tenant, "prompt").inc(request.prompt_tokens)
            self._tenant_tokens.labels(tenant, "output").inc(len(live.output))
            self._tokens.labels(model, "prompt").inc(request.prompt_tokens)
            self._tokens.labels(model, "output").inc(len(live.output))
        if isinstance(outcome, Finished):
            self._finished(live, outcome, model, priority, now)
        attainment = slo.of_ended(live, now, self._default_targets)
        self._count_slo(model, priority, attainment)
        return attainment

    def _finished(self, live: ObservedRequest, outcome: Finished, model: str, priority: str, now: float) -> None:
        self._tokens.labels(model, "cached_prompt").inc(outcome.cached_prompt_tokens)
        if outcome.completion_tokens > 1 and outcome.decode_s is not None:
            self._tpot.labels(model, priority).observe(outcome.decode_s / (outcome.completion_tokens - 1))
        last = live.placements[-1]
        own_tokens = outcome.completion_tokens - last.from_token
        if own_tokens > 0 and not _is_adopted(live, last.decision):
            predicted_s = _finish_s(last.decision, own_tokens)
            self._predicted("finish", predicted_s, now - last.decision.decided_at)

    def _count_overload(self, error: BaseException, tenant: str, priority: str) -> None:
        cause = overload_cause(error)
        if cause:
            self._overloaded.labels(tenant_label(tenant, self._tenants), priority, cause).inc()

    def _predicted(self, quantity: str, predicted_s: float, measured_s: float) -> None:
        error = abs(predicted_s - measured_s) / max(measured_s, LEAST_S)
        direction = "early" if measured_s <= predicted_s else "late"
        self._error.labels(quantity, direction).observe(error)

    def _count_slo(self, model: str, priority: str, attainment: slo.Attainment) -> None:
        for target in attainment.met:
            self._slo.labels(model, priority, target, "met").inc()
        for target in attainment.missed:
            self._slo.labels(model, priority, target, "missed").inc()


def _is_adopted(live: ObservedRequest, decision: Decision) -> bool:
    """Return whether an attempt began before its decision here was made: then its times say nothing about it."""
    return live.adopted is not None and live.adopted.number_here == decision.attempt_number


def _finish_s(decision: Decision, own_tokens: int) -> float:
    """Return the seconds to the last token that would have been predicted for the actual output length."""
    prediction = decision.prediction
    tokens_after_first = max(1, prediction.output_tokens - 1)
    token_s = (prediction.finish_s - prediction.first_token_s) / tokens_after_first
    return prediction.first_token_s + (own_tokens - 1) * token_s


def _name(priority: Priority) -> str:
    return _NAMES[priority]


_NAMES = {priority: priority.name.lower() for priority in Priority}
