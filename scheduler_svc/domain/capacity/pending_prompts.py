"""Prompts that were sent to one instance and are not computed yet."""

from __future__ import annotations

from scheduler_svc.domain.capacity.reservation import Reservation

#: Share of the prompts behind the oldest at an engine that have not begun, on average, when a CRITICAL one comes: it
#: goes before those; what has begun is computed to its end.
_NOT_BEGUN = 0.5


class PendingPrompts:
    """The reservations on an instance before their first token, and the engine time to prefill their prompts.

    Times are seconds on the scheduler's clock.
    """

    __slots__ = ("busy_until", "critical_in_a_row", "prompts", "seconds", "urgent", "urgent_s")

    def __init__(self) -> None:
        self.prompts: dict[int, Reservation] = {}  # by attempt number, oldest first
        self.seconds = 0.0  # of engine time to prefill them
        self.urgent = 0  # how many of them are CRITICAL
        self.urgent_s = 0.0  # of ``seconds``, those of CRITICAL requests
        self.critical_in_a_row = 0  # CRITICAL reservations since the last of another class
        self.busy_until = 0.0  # when the last of them is predicted to be prefilled

    def __len__(self) -> int:
        return len(self.prompts)

    def __bool__(self) -> bool:
        return bool(self.prompts)

    def add(self, reservation: Reservation, now: float) -> None:
        """Note a reservation whose prompt was sent."""
        prefill_s = reservation.prefill_s
        self.prompts[reservation.attempt_number] = reservation
        self.seconds += prefill_s
        if reservation.critical:
            self.urgent += 1
            self.urgent_s += prefill_s
            self.critical_in_a_row += 1
        else:
            self.critical_in_a_row = 0
        self.busy_until = (now if now > self.busy_until else self.busy_until) + prefill_s

    def remove(self, reservation: Reservation, now: float) -> None:
        """Note that a reservation's prompt is computed or its attempt over.  It may be out already."""
        if self.prompts.pop(reservation.attempt_number, None) is None:
            return
        self.seconds = self.seconds - reservation.prefill_s if self.prompts else 0.0
        if reservation.critical:
            self.urgent -= 1
            self.urgent_s = self.urgent_s - reservation.prefill_s if self.prompts else 0.0
        busy_until = now + self.seconds
        if busy_until < self.busy_until:
            self.busy_until = busy_until

    def ahead_s(self, chunk_s: float) -> float:
        """Return seconds of prefill that are ahead of one more prompt; there are prompts.

        The oldest prompt counts as one chunk of ``chunk_s`` seconds at most.  It is being computed, however long it is:
        if it counted as a whole, the engine would have no other prompt at its end.
        """
        oldest_s = next(iter(self.prompts.values())).prefill_s
        return self.seconds - (oldest_s - chunk_s) if oldest_s > chunk_s else self.seconds

    def overtaken_s(self) -> float:
        """Predict seconds of prefill that a CRITICAL prompt goes before; there are prompts."""
        oldest = next(iter(self.prompts.values()))
        behind_s = self.seconds - self.urgent_s - (0.0 if oldest.critical else oldest.prefill_s)
        return _NOT_BEGUN * behind_s if behind_s > 0 else 0.0
