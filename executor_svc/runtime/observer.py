"""The port that telemetry implements: the runtime calls it when something worth recording happens.

An observer returns at once, raises nothing and changes nothing.  None of these methods is called per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from executor_svc.runtime.engine_port import Iteration
from executor_svc.runtime.messages.commands import Assign
from executor_svc.runtime.messages.outputs import Ended


class AttemptObserver(Protocol):
    """Observes one attempt, from its Assign to its end."""

    @property
    def trace_headers(self) -> Mapping[str, str]:
        """W3C trace context to pass to the engine, so that its spans belong to the request's trace."""
        ...

    def first_token(self) -> None:
        """Note that the attempt's first new token came out of the engine."""
        ...

    def ended(self, ended: Ended) -> None:
        """Note that the attempt ended and that the engine holds nothing for it any more."""
        ...


class Observer(Protocol):
    """Observes the executor."""

    def assigned(self, assign: Assign) -> AttemptObserver:
        """Note that an attempt starts.  Return its observer."""
        ...

    def not_started(self, cause: str) -> None:
        """Note an attempt that was not started.

        ``cause``: a metric label, such as ``invalid`` or ``rejected_full``.
        """
        ...

    def iterated(self, iterations: Sequence[Iteration]) -> None:
        """Note the engine's iterations since the last call, at most the latest 256."""
        ...

    def lagged(self, lag_s: float) -> None:
        """Note the event loop's lag, in seconds."""
        ...

    def connected(self) -> None:
        """Note that a session with a scheduler began."""
        ...

    def adapter_loaded(self, result: str, took_s: float) -> None:
        """Note that loading an adapter ended after ``took_s`` seconds.

        ``result``: a metric label; ``loaded``, or how it failed.
        """
        ...

    def adapter_unloaded(self, result: str) -> None:
        """Note that unloading an adapter ended.  ``result``: a metric label; ``unloaded``, or how it failed."""
        ...


class UnobservedAttempt:
    """An AttemptObserver that does nothing; the engine gets the scheduler's trace context unchanged."""

    def __init__(self, trace_headers: Mapping[str, str]) -> None:
        self.trace_headers = trace_headers

    def first_token(self) -> None:
        """Do nothing."""

    def ended(self, ended: Ended) -> None:
        """Do nothing."""


class NullObserver:
    """An Observer that does nothing."""

    def assigned(self, assign: Assign) -> AttemptObserver:
        """Return an observer that does nothing."""
        return UnobservedAttempt(assign.trace_headers)

    def not_started(self, cause: str) -> None:
        """Do nothing."""

    def iterated(self, iterations: Sequence[Iteration]) -> None:
        """Do nothing."""

    def lagged(self, lag_s: float) -> None:
        """Do nothing."""

    def connected(self) -> None:
        """Do nothing."""

    def adapter_loaded(self, result: str, took_s: float) -> None:
        """Do nothing."""

    def adapter_unloaded(self, result: str) -> None:
        """Do nothing."""


NULL_OBSERVER = NullObserver()
