"""The frames of a session that its client has not acknowledged."""

from __future__ import annotations

from sage_common.clock import Clock
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest
from scheduler_svc.transport.client_sessions.limits import WINDOW_FRAMES


class Window:
    """Numbers frames from 1, and says how many more may be sent."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sent = 0  # number of the latest frame
        self._acknowledged = 0
        self.waiting_since: float | None = None  # of the latest acknowledgement or, after it, of the first frame

    @property
    def closed(self) -> bool:
        """Whether no frame may be sent."""
        return self._sent - self._acknowledged >= WINDOW_FRAMES

    @property
    def mostly_open(self) -> bool:
        """Whether more than half of the window is open."""
        return 2 * (self._sent - self._acknowledged) < WINDOW_FRAMES

    def send(self) -> int:
        """Count a frame, and return its number."""
        self._sent += 1
        if self.waiting_since is None:
            self.waiting_since = self._clock.now()
        return self._sent

    def acknowledge(self, number: int) -> None:
        """Note that the client handled a frame and all before it.  Raises InvalidRequest for one that was not sent."""
        if number > self._sent:
            description = f"is {number}; the latest frame is {self._sent}"
            raise InvalidRequest([FieldViolation(field="acknowledged", description=description)])
        if number > self._acknowledged:
            self._acknowledged = number
            self.waiting_since = None if number == self._sent else self._clock.now()
