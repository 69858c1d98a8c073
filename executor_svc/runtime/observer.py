"""Who watches what happens: the port that telemetry implements.

Runtime tells what happened and goes on.  An observer returns at once, raises nothing and changes nothing; none of these
is called per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from executor_svc.runtime.engine_port import Iteration
from executor_svc.runtime.messages.commands import Assign
from executor_svc.runtime.messages.outputs import Ended


class AttemptObserver(Protocol):
    """Of one attempt, from its Assign to its end."""

    @property
    def trace_headers(self) -> Mapping[str, str]:
        """W3C trace context that the engine's own work is part of."""
        ...

    def first_token(self) -> None:
        """Its first new token came out of the engine."""
        ...

    def ended(self, ended: Ended) -> None:
        """Its room in the engine is free."""
        ...


class Observer(Protocol):
    def assigned(self, assign: Assign) -> AttemptObserver:
        """An attempt starts."""
        ...

    def turned_down(self, cause: str) -> None:
        """An attempt that never started; ``cause`` is one of a few words."""
        ...

    def iterated(self, iterations: Sequence[Iteration]) -> None:
        """What the engine did since the last call; a sample, where it did very much."""
        ...

    def lagged(self, lag_s: float) -> None:
        """How late the event loop was."""
        ...

    def connected(self) -> None:
        """A session with a scheduler began."""
        ...


class UnobservedAttempt:
    """Nobody watches; the scheduler's trace context goes on to the engine as it came."""

    def __init__(self, trace_headers: Mapping[str, str]) -> None:
        self.trace_headers = trace_headers

    def first_token(self) -> None:
        pass

    def ended(self, ended: Ended) -> None:
        pass


class NullObserver:
    """Nobody watches."""

    def assigned(self, assign: Assign) -> AttemptObserver:
        return UnobservedAttempt(assign.trace_headers)

    def turned_down(self, cause: str) -> None:
        pass

    def iterated(self, iterations: Sequence[Iteration]) -> None:
        pass

    def lagged(self, lag_s: float) -> None:
        pass

    def connected(self) -> None:
        pass


NULL_OBSERVER = NullObserver()
