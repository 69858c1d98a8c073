"""The metrics of attempts, iterations, sessions and the event loop."""

from __future__ import annotations

from collections.abc import Sequence

from executor_svc.runtime.engine_port import Iteration
from executor_svc.runtime.messages.outputs import EndCause
from sage_telemetry import catalogue
from sage_telemetry.meter import Meter


class AttemptMetrics:
    """Records attempts, iterations, sessions and the event loop's lag as metrics."""

    def __init__(self, meter: Meter) -> None:
        self._attempts = meter.counter(catalogue.ATTEMPTS)
        self._duration = meter.histogram(catalogue.ATTEMPT_DURATION)
        self._ttft = meter.histogram(catalogue.ATTEMPT_TTFT).labels()
        self._itl = meter.weighted(catalogue.ITL)
        self._sessions = meter.counter(catalogue.SESSIONS).labels()
        self._lag = meter.histogram(catalogue.LOOP_LAG).labels()

    def first_token(self, took_s: float) -> None:
        """Record the time to an attempt's first token, in seconds."""
        self._ttft.observe(took_s)

    def ended(self, cause: EndCause, engine_time_s: float) -> None:
        """Record an attempt's end and its time in the engine, in seconds."""
        self._attempts.labels(cause.value).inc()
        self._duration.labels(cause.value).observe(engine_time_s)

    def not_started(self, cause: str) -> None:
        """Count an attempt that was not started."""
        self._attempts.labels(cause).inc()

    def iterated(self, iterations: Sequence[Iteration]) -> None:
        """Record inter-token latencies: each decoding sequence waits one whole iteration for its token."""
        for iteration in iterations:
            if iteration.decode_tokens:
                self._itl.observe(iteration.elapsed_s, iteration.decode_tokens * iteration.steps)

    def lagged(self, lag_s: float) -> None:
        """Record the event loop's lag, in seconds."""
        self._lag.observe(lag_s)

    def connected(self) -> None:
        """Count a session."""
        self._sessions.inc()
