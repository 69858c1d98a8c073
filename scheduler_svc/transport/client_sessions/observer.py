"""The port through which telemetry observes sessions of clients.  An observer returns at once and raises nothing."""

from __future__ import annotations

from typing import Protocol


class SessionObserver(Protocol):
    """Observes all sessions; called once per session or frame, never per token."""

    def opened(self) -> None:
        """Note that a session is open."""
        ...

    def closed(self) -> None:
        """Note that a session is over."""
        ...

    def sent(self, tokens: int, size: int) -> None:
        """Note a frame that is written: its output tokens, and its bytes."""
        ...

    def stalled(self) -> None:
        """Note that something waits for a frame, and that the window is closed."""
        ...


class NullSessionObserver:
    """Implements SessionObserver and does nothing."""

    def opened(self) -> None:
        """Do nothing."""

    def closed(self) -> None:
        """Do nothing."""

    def sent(self, tokens: int, size: int) -> None:
        """Do nothing."""

    def stalled(self) -> None:
        """Do nothing."""


NULL_SESSION_OBSERVER = NullSessionObserver()
