"""The port to a scheduler.

``transport.grpc_link`` implements it with two gRPC streams; tests implement it in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from executor_svc.runtime.messages.commands import Command
from executor_svc.runtime.messages.outputs import Ack, StepFrame
from executor_svc.runtime.messages.registration import Register, Welcome
from executor_svc.runtime.messages.reports import ControlUp


class LinkBroken(Exception):
    """A stream ended or could not be opened.  Dialling again may help."""


class NotLeader(LinkBroken):
    """The scheduler does not lead: another one does, or none."""

    def __init__(self, message: str, *, leaders: Sequence[str] = (), retry_s: float | None = None) -> None:
        """``leaders``: addresses of the one that leads.  ``retry_s``: after these seconds it may have changed."""
        super().__init__(message)
        self.leaders = tuple(leaders)
        self.retry_s = retry_s


class LinkRefused(Exception):
    """The scheduler refused the registration, with a reason of the error catalogue."""

    def __init__(self, reason: str, message: str, *, permanent: bool, about_credentials: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.permanent = permanent  # asking the same scheduler again will not help
        self.about_credentials = about_credentials  # it will help once keys or certificates are changed


class Link(Protocol):
    """One session's two streams.

    Each method raises LinkBroken once either stream is gone.  At most one caller at a time per method.
    """

    async def register(self, register: Register) -> Welcome:
        """Open the control stream and register.  Raises LinkRefused."""
        ...

    async def open_outputs(self, session_id: str) -> None:
        """Open the output stream of a session."""
        ...

    async def send_control(self, message: ControlUp) -> None:
        """Send on the control stream.  Waits while the scheduler does not read."""
        ...

    async def send_output(self, frame: StepFrame) -> None:
        """Send on the output stream.  Waits while the scheduler does not read."""
        ...

    def commands(self) -> AsyncIterator[Command]:
        """Yield the scheduler's commands until it closes the control stream."""
        ...

    def acks(self) -> AsyncIterator[Sequence[Ack]]:
        """Yield acknowledgements, until the scheduler closes the output stream."""
        ...

    async def leave(self) -> None:
        """Half-close both streams after a Goodbye and wait until the scheduler has closed them too."""
        ...

    async def close(self) -> None:
        """Cancel both streams.  Idempotent; raises nothing."""
        ...


class Dialer(Protocol):
    """Makes links."""

    def dial(self, address: str) -> Link:
        """Return a link to the scheduler at ``address``.  Nothing is sent before ``register``.

        Raises LinkBroken if what proves who this executor is cannot be read now.
        """
        ...
