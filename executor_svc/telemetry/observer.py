"""The runtime's Observer: records metrics of every attempt, and spans of attempts whose trace is sampled."""

from __future__ import annotations

from collections.abc import Sequence

from executor_svc.runtime.engine_port import Iteration
from executor_svc.runtime.messages.commands import Assign
from executor_svc.runtime.observer import AttemptObserver
from executor_svc.telemetry.adapter_metrics import AdapterMetrics
from executor_svc.telemetry.attempt_metrics import AttemptMetrics
from executor_svc.telemetry.attempt_watch import AttemptWatch
from sage_telemetry.meter import Meter
from sage_telemetry.otlp_attributes import Attributes
from sage_telemetry.span_export import SpanExport
from sage_telemetry.trace_context import HeadSampling, parent_of


class TelemetryObserver:
    """Implements ``runtime.observer.Observer``.

    ``spans`` is None if nothing is traced; the engine then gets the scheduler's trace context unchanged.
    """

    def __init__(
        self,
        meter: Meter,
        spans: SpanExport | None,
        *,
        instance_id: str,
        model: str,
        engine: str,
        sampling_ratio: float,
    ) -> None:
        self._metrics = AttemptMetrics(meter)
        self._adapters = AdapterMetrics(meter)
        self._spans = spans
        self._instance_id = instance_id
        self._model = model
        self._engine = engine
        self._sampling = HeadSampling(sampling_ratio)

    def assigned(self, assign: Assign) -> AttemptObserver:
        """Return the observer of a new attempt."""
        if self._spans is None:
            return AttemptWatch(assign, self._metrics)
        # An Assign without a trace context comes from a scheduler that does not trace: the executor samples by itself.
        parent = parent_of(assign.trace_headers)
        context = self._sampling.begin(parent)
        if not context.trace_flags.sampled:
            return AttemptWatch(assign, self._metrics, context=context)
        return AttemptWatch(
            assign,
            self._metrics,
            context=context,
            parent=parent,
            facts=self._facts(assign),
            finish=self._spans.put,
        )

    def _facts(self, assign: Assign) -> Attributes:
        return {
            "gen_ai.operation.name": "text_completion",  # prompts come as tokens, chats included
            "gen_ai.provider.name": self._engine,
            "gen_ai.request.model": self._model,
            "gen_ai.usage.input_tokens": assign.prompt_tokens,
            "sage.request.id": assign.request_id,
            "sage.instance.id": self._instance_id,
            "sage.engine": self._engine,
            "sage.attempt.number": assign.attempt.number,
            "sage.attempt.epoch": assign.attempt.epoch,
            "sage.attempt.continuation": None if assign.continuation is None else assign.continuation.mode.value,
            "sage.adapter": assign.adapter,
        }

    def not_started(self, cause: str) -> None:
        """Count an attempt that was not started."""
        self._metrics.not_started(cause)

    def iterated(self, iterations: Sequence[Iteration]) -> None:
        """Record inter-token latencies."""
        self._metrics.iterated(iterations)

    def lagged(self, lag_s: float) -> None:
        """Record the event loop's lag, in seconds."""
        self._metrics.lagged(lag_s)

    def connected(self) -> None:
        """Count a session."""
        self._metrics.connected()

    def adapter_loaded(self, result: str, took_s: float) -> None:
        """Count an adapter that was loaded in ``took_s`` seconds, or was not."""
        self._adapters.loaded(result, took_s)

    def adapter_unloaded(self, result: str) -> None:
        """Count an adapter that was unloaded, or could not be."""
        self._adapters.unloaded(result)
