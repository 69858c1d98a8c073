"""What attempts and iterations count."""

from __future__ import annotations

from collections.abc import Sequence

from executor_svc.runtime.engine_port import Iteration
from executor_svc.runtime.messages.outputs import EndCause
from sage_telemetry import catalogue
from sage_telemetry.meter import Meter


class AttemptMetrics:
    def __init__(self, meter: Meter) -> None:
        self._attempts = meter.counter(catalogue.ATTEMPTS)
        self._duration = meter.histogram(catalogue.ATTEMPT_DURATION)
        self._ttft = meter.histogram(catalogue.ATTEMPT_TTFT).of()
        self._itl = meter.histogram(catalogue.ITL).of()
        self._sessions = meter.counter(catalogue.SESSIONS).of()
        self._lag = meter.histogram(catalogue.LOOP_LAG).of()

    def first_token(self, took_s: float) -> None:
        self._ttft.record(took_s)

    def ended(self, cause: EndCause, engine_time_s: float) -> None:
        self._attempts.of(cause.value).add()
        self._duration.of(cause.value).record(engine_time_s)

    def turned_down(self, cause: str) -> None:
        self._attempts.of(cause).add()

    def iterated(self, iterations: Sequence[Iteration]) -> None:
        """Each sequence that decodes waits for the whole iteration: that is its inter-token latency."""
        for iteration in iterations:
            if iteration.decode_tokens:
                self._itl.record(iteration.elapsed_s, iteration.decode_tokens)

    def lagged(self, lag_s: float) -> None:
        self._lag.record(lag_s)

    def connected(self) -> None:
        self._sessions.add()
