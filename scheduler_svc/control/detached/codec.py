"""The port to the encoding of what the journal keeps of detached work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Outcome
from scheduler_svc.domain.request import Request


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedRequest:
    """A request as it was accepted."""

    request: Request
    digest: bytes
    warnings: tuple[str, ...]


class Unreadable(Exception):
    """What the journal has cannot be read by this version; says why."""


class Codec(Protocol):
    """Encodes requests and outcomes, and reads them again."""

    def encode(self, live: LiveRequest) -> bytes:
        """Return a request with its whole content."""
        ...

    def encode_about(self, live: LiveRequest, accepted_at: float) -> bytes:
        """Return what a list shows of a request.  ``accepted_at``: seconds since 1970."""
        ...

    def decode(self, content: bytes, *, arrived_at: float, deadline_at: float | None) -> DecodedRequest:
        """Return the request of its content; its times are seconds on the control clock.  Raises Unreadable."""
        ...

    def encode_outcome(self, outcome: Outcome, of_all: Outcome | None = None) -> bytes:
        """Return an outcome; ``of_all``: of choice 0 of several, how the request ended with all of them."""
        ...

    def decode_outcome(self, outcome: bytes) -> Outcome:
        """Return the outcome that was encoded, an error as ``RecordedFailure``.  Raises Unreadable."""
        ...
