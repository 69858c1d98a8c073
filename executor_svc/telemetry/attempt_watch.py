"""Observes one attempt: counts it and, if its trace is sampled, writes its spans once it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from opentelemetry.trace import SpanContext, SpanKind

from executor_svc.runtime.messages.commands import Assign
from executor_svc.runtime.messages.outputs import EndCause, Ended
from executor_svc.telemetry.attempt_metrics import AttemptMetrics
from sage_telemetry.otlp_attributes import Attributes
from sage_telemetry.spans import Event, SpanSource, SpanWriter
from sage_telemetry.trace_context import child_of, headers_of

FAILURES = frozenset({EndCause.FAILED, EndCause.INVALID, EndCause.REPLAY_DIVERGED, EndCause.DEADLINE})


class AttemptWatch:
    """Observes one attempt and keeps the data for its spans.  Implements ``runtime.observer.AttemptObserver``."""

    __slots__ = (
        "_context",
        "_ended",
        "_ended_ns",
        "_facts",
        "_finish",
        "_first_token_ns",
        "_metrics",
        "_parent",
        "_started_ns",
        "_transfers",
        "trace_headers",
    )

    def __init__(
        self,
        assign: Assign,
        metrics: AttemptMetrics,
        *,
        context: SpanContext | None = None,
        parent: SpanContext | None = None,
        facts: Attributes = MappingProxyType({}),
        finish: Callable[[SpanSource], None] | None = None,
    ) -> None:
        """Start to observe an attempt.

        ``context``: the attempt's own span; None if nothing is traced.  ``parent``: the scheduler's span.  ``facts``:
        attributes of the attempt's span that are known at its start.  ``finish``: takes the attempt's spans at its end;
        None if the trace is not sampled.
        """
        self._metrics = metrics
        self._facts = facts
        self._finish = finish
        self._transfers = assign.kv_transfer_params is not None
        self._parent = parent
        self._context = context
        self.trace_headers: Mapping[str, str] = headers_of(context) if context is not None else assign.trace_headers
        self._started_ns = time.time_ns()
        self._first_token_ns: int | None = None
        self._ended_ns = 0
        self._ended: Ended | None = None

    def first_token(self) -> None:
        """Note the time of the first token."""
        self._first_token_ns = time.time_ns()
        self._metrics.first_token((self._first_token_ns - self._started_ns) / 1e9)

    def ended(self, ended: Ended) -> None:
        """Count the end and, if the trace is sampled, pass the spans on."""
        self._metrics.ended(ended.cause, ended.engine_time_s)
        if self._finish is not None:
            self._ended = ended
            self._ended_ns = time.time_ns()
            self._finish(self)

    # --- in the exporter's thread -----------------------------------------------------------------

    @property
    def context(self) -> SpanContext:
        """Context of the attempt's own span."""
        assert self._context is not None, "only a sampled attempt is exported"
        return self._context

    @property
    def span_count(self) -> int:
        """Number of spans that ``write_spans`` writes."""
        return 2 if self._first_token_ns is None else 3

    def write_spans(self, writer: SpanWriter) -> None:
        """Write the attempt's spans.  Called in the exporter's thread, once the attempt is over."""
        context, ended, first = self._context, self._ended, self._first_token_ns
        assert context is not None, "only a sampled attempt is exported"
        assert ended is not None, "an attempt is exported after its end"
        writer.write(
            "sage.execute",
            context,
            self._parent,
            self._started_ns,
            self._ended_ns,
            {**self._facts, **_end(ended)},
            kind=SpanKind.SERVER,
            failed=_failure(ended) if ended.cause in FAILURES else None,
            events=(Event("sage.first_token", first),) if first is not None else (),
        )
        until = first if first is not None else self._ended_ns
        name, attributes = ("sage.kv_transfer", _recomputed(ended)) if self._transfers else ("sage.prefill", {})
        writer.write(name, child_of(context), context, self._started_ns, until, attributes)
        if first is not None:
            writer.write("sage.decode", child_of(context), context, first, self._ended_ns, {})


def _end(ended: Ended) -> Attributes:
    return {
        "sage.attempt.end": ended.cause.value,
        "sage.failure": _failure(ended) if ended.cause in FAILURES else None,
        "error.type": ended.cause.value if ended.cause in FAILURES else None,
        "gen_ai.response.finish_reasons": [ended.finish_reason.value] if ended.finish_reason is not None else None,
        "gen_ai.usage.output_tokens": ended.total_tokens,
        "gen_ai.usage.cache_read.input_tokens": ended.cached_prompt_tokens,
        **_recomputed(ended),
    }


def _recomputed(ended: Ended) -> Attributes:
    return {"sage.kv.recomputed": ended.kv_recomputed or None}


def _failure(ended: Ended) -> str:
    """Return why the attempt failed.

    For an invalid request only the field is named, because the engine's message may quote the request.
    """
    if ended.cause is EndCause.INVALID:
        return f"the engine found {ended.field_name or 'the request'} invalid"
    return ended.message or ended.cause.value
