"""The port that telemetry implements: it is told what happens.

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
        """W3C trace context that the engine's own work is part of."""
        ...

    def first_token(self) -> None:
        """Note that the attempt's first new token came out of the engine."""
        ...

    def ended(self, ended: Ended) -> None:
        """Note that the attempt ended, and the engine holds nothing for it."""
        ...


class Observer(Protocol):
    """Observes the executor."""

    def assigned(self, assign: Assign) -> AttemptObserver:
        """Note that an attempt starts.  Return its observer."""
        ...

    def turned_down(self, cause: str) -> None:
        """Note an attempt that was not started; ``cause`` is one of a few words."""
        ...

    def iterated(self, iterations: Sequence[Iteration]) -> None:
        """Note the engine's iterations since the last call; a sample, if there were very many."""
        ...

    def lagged(self, lag_s: float) -> None:
        """Note the event loop's lag, in seconds."""
        ...

    def connected(self) -> None:
        """Note that a session with a scheduler began."""
        ...


class UnobservedAttempt:
    """Observes nothing; the scheduler's trace context goes on to the engine as it came."""

    def __init__(self, trace_headers: Mapping[str, str]) -> None:
        self.trace_headers = trace_headers

    def first_token(self) -> None:
        """Do nothing."""

    def ended(self, ended: Ended) -> None:
        """Do nothing."""


class NullObserver:
    """Observes nothing."""

    def assigned(self, assign: Assign) -> AttemptObserver:
        """Return an observer that does nothing."""
        return UnobservedAttempt(assign.trace_headers)

    def turned_down(self, cause: str) -> None:
        """Do nothing."""

    def iterated(self, iterations: Sequence[Iteration]) -> None:
        """Do nothing."""

    def lagged(self, lag_s: float) -> None:
        """Do nothing."""

    def connected(self) -> None:
        """Do nothing."""


NULL_OBSERVER = NullObserver()
