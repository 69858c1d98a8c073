"""Control's Observer over OpenTelemetry: it counts every request and writes the spans of sampled ones."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.trace import SpanContext

from sage_telemetry.catalogue import LOOP_LAG
from sage_telemetry.meter import Meter
from sage_telemetry.span_export import SpanExport
from sage_telemetry.trace_context import HeadSampling, parent_of
from scheduler_svc.control.requests.observed_request import ObservedRequest
from scheduler_svc.control.requests.observer import RequestObserver
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.telemetry.end_note import EndNote
from scheduler_svc.telemetry.request_metrics import UNKNOWN_MODEL, RequestMetrics
from scheduler_svc.telemetry.request_notes import RequestNotes, notes_on, notes_on_adopted
from scheduler_svc.telemetry.request_spans import RequestSpans
from scheduler_svc.telemetry.request_watch import LatestPass, RequestWatch


class TelemetryObserver:
    """Watches requests, scheduling passes and the event loop's lag.

    ``spans`` is None if nothing is traced.  The trace contexts of callers are then passed to executors unchanged.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        meter: Meter,
        spans: SpanExport | None,
        *,
        epoch: int,
        sampling_ratio: float,
        content: bool,
    ) -> None:
        self._scheduler = scheduler
        self._spans = spans
        self._epoch = epoch
        self._sampling = HeadSampling(sampling_ratio)
        self._content = content
        settings = scheduler.settings
        self._metrics = RequestMetrics(meter, settings.default_targets, frozenset(settings.shares.tenants))
        self._lag = meter.histogram(LOOP_LAG).labels()
        self._latest_pass = LatestPass()

    def arrived(self, submission: Submission, now: float) -> RequestObserver:
        """Return the observer of a request that arrives now (seconds on the control clock)."""
        context = notes = None
        if self._spans is not None:
            parent = parent_of(submission.trace_headers)
            context = self._sampling.begin(parent)
            if context.trace_flags.sampled:
                notes = notes_on(submission, context, parent, now, content=self._content)
        return self._watch(submission, context, notes)

    def adopted(self, live: ObservedRequest, decision: Decision | None, now: float) -> RequestObserver:
        """Return the observer of a request that an earlier scheduler accepted; its span is of the same trace."""
        context = notes = None
        if self._spans is not None:
            parent = parent_of(live.request.trace_headers)
            context = self._sampling.begin(parent)
            if context.trace_flags.sampled:
                notes = notes_on_adopted(live, decision, context, parent, now)
        return self._watch(None, context, notes, decision)

    def _watch(
        self,
        submission: Submission | None,
        context: SpanContext | None,
        notes: RequestNotes | None,
        decision: Decision | None = None,
    ) -> RequestWatch:
        return RequestWatch(
            submission,
            self._metrics,
            self._model_label,
            self._latest_pass,
            context=context,
            notes=notes,
            finish=self._finish,
            content=self._content,
            decision=decision,
        )

    def scheduled(self, decisions: Sequence[Decision], took_s: float) -> None:
        """Count a scheduling pass that took ``took_s`` seconds, and its decisions."""
        self._latest_pass.took_s = took_s
        self._latest_pass.decisions = len(decisions)
        self._metrics.scheduled(decisions, took_s)

    def lagged(self, lag_s: float) -> None:
        """Record that the event loop ran a timer ``lag_s`` seconds late."""
        self._lag.observe(lag_s)

    def begin_models(self) -> None:
        """Begin the counters of new models at 0.

        Runs on the event loop before figures are read, so that no model is exported without its counters.
        """
        self._metrics.begin([UNKNOWN_MODEL, *self._scheduler.models()])

    def _model_label(self, model: str) -> str:
        """Return the model as a metric label.

        Clients may send any name; a name that the registry does not know becomes UNKNOWN_MODEL, which bounds the
        number of labels.
        """
        return model if self._scheduler.knows_model(model) else UNKNOWN_MODEL

    def _finish(self, notes: RequestNotes, end: EndNote) -> None:
        if self._spans is not None:
            self._spans.put(RequestSpans(notes, end, epoch=self._epoch))
