"""The metrics of clients' sessions and their frames."""

from __future__ import annotations

from sage_telemetry import catalogue
from sage_telemetry.meter import Meter


class SessionMetrics:
    """Implements transport's SessionObserver; called once per session or frame."""

    def __init__(self, meter: Meter) -> None:
        self.open = 0  # sessions
        self._frames = meter.counter(catalogue.FRAMES).labels()
        self._tokens = meter.histogram(catalogue.FRAME_TOKENS).labels()
        self._bytes = meter.counter(catalogue.FRAME_BYTES).labels()
        self._stalls = meter.counter(catalogue.WINDOW_STALLS).labels()

    def opened(self) -> None:
        """Count a session that is open."""
        self.open += 1

    def closed(self) -> None:
        """Count a session no more."""
        self.open -= 1

    def sent(self, tokens: int, size: int) -> None:
        """Count a frame with its output tokens and bytes."""
        self._frames.inc()
        self._tokens.observe(tokens)
        self._bytes.inc(size)

    def stalled(self) -> None:
        """Count a window that closed while something waited for a frame."""
        self._stalls.inc()
